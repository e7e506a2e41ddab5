"""The control plane over HTTP: sites, Stripe's webhooks, operators.

Whatever blocks runs in threads of bounded number; a body is written to a file while it comes, so
that slow senders hold neither memory nor a thread.
"""

import asyncio
import hmac
import logging
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Final, TypeVar

import msgspec
from aiohttp import web

from appliance.controlplane import carriage, enrolment, failures, signed_requests
from appliance.controlplane.carriage import Delivery
from appliance.controlplane.errors import (
    BadUpload,
    OperatorDenied,
    RequestRefused,
    UploadTooLarge,
)
from appliance.controlplane.operator_api import OperatorCall, OperatorRoute
from appliance.controlplane.payments.stripe_errors import StripeNotConfigured
from appliance.controlplane.pull import pulled
from appliance.controlplane.rates import Rates
from appliance.controlplane.service import ControlPlane
from appliance.manifests.bundle import RECEIPT_MEDIA_TYPE, USAGE_MEDIA_TYPE, UsageReader

log = logging.getLogger(__name__)

T = TypeVar("T")
# Stripe's webhook: the raw body and the signature header; False when it is known already.
Webhook = Callable[[bytes, str], Awaitable[bool]]

_SMALL_BYTES: Final = 1024 * 1024
_UPLOADS_MAX: Final = 32  # bodies on their way at once
_PIECE_BYTES: Final = 64 * 1024
SITES_OF_SENDER: Final = 20  # as many sites may report from one address


class _EnrolBody(msgspec.Struct, frozen=True):
    code: str
    enrolment: str


class App:
    """The handlers. `ready` turns false when the process is about to stop."""

    def __init__(
        self,
        plane: ControlPlane,
        webhook: Webhook | None = None,
        operator_routes: Sequence[OperatorRoute] = (),
    ) -> None:
        self.ready = True
        self._plane = plane
        self._webhook = webhook
        self._operator_routes = operator_routes
        self._threads = ThreadPoolExecutor(
            plane.settings.ingest.at_once_max, thread_name_prefix="ingest"
        )
        self._uploads = asyncio.Semaphore(_UPLOADS_MAX)
        self._rates = Rates(plane.clock, plane.settings.ingest.requests_per_min)

    def application(self) -> web.Application:
        """Every route, wrapped so that an error becomes its answer."""
        application = web.Application(middlewares=[failures.answered], client_max_size=_SMALL_BYTES)
        router = application.router
        router.add_get("/healthz", self._healthy)
        router.add_get("/readyz", self._readiness)
        router.add_get("/v1/key", self._key)
        router.add_post("/v1/enrol", self._enrol)
        router.add_post("/v1/manifests", self._manifests)
        router.add_get("/v1/receipts", self._receipts)
        router.add_post("/webhooks/stripe", self._stripe)
        for route in self._operator_routes:
            router.add_route(route.method, f"/v1/operator{route.path}", self._operated(route))
        return application

    def close(self) -> None:
        self._threads.shutdown(wait=True)

    async def _healthy(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readiness(self, _request: web.Request) -> web.Response:
        if self.ready:
            await self._plane.database.aread(
                lambda connection: connection.exec_driver_sql("SELECT 1").scalar()
            )
            return web.json_response({"status": "ok"})
        return web.json_response({"status": "not ready"}, status=503)

    async def _key(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._plane.identity.key.public.pem)

    async def _enrol(self, request: web.Request) -> web.Response:
        self._rates.spend(("enrol", request.remote or ""))
        try:
            body = msgspec.json.decode(await self._body(request), type=_EnrolBody)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadUpload(
                f"The enrolment is not understood: {error}.",
                next_step='Send {"code": …, "enrolment": …}.',
            ) from error
        act = self._plane.act("enrolment")
        site = await self._plane.database.arun(
            lambda connection: enrolment.enrol_with_code(
                connection, act, body.code, body.enrolment.encode("utf-8", "replace")
            )
        )
        log.info("site enrolled", extra={"appliance_id": site.appliance_id, "site": site.name})
        answer = {
            "appliance_id": site.appliance_id,
            "customer": site.customer,
            "key_pem": self._plane.identity.key.public.pem,
        }
        return web.json_response(answer, status=201)

    async def _manifests(self, request: web.Request) -> web.Response:
        if request.content_type != USAGE_MEDIA_TYPE:
            raise BadUpload(
                f"The body is {request.content_type}, not {USAGE_MEDIA_TYPE}.",
                next_step="Send a .usage bundle.",
            )
        with tempfile.TemporaryFile() as file:
            async with self._uploads:
                await self._spool(request, file)
            delivery = await self._in_thread(lambda: self._taken(file, request.remote or ""))
        raw = carriage.answer(delivery)
        return web.Response(body=raw, content_type=RECEIPT_MEDIA_TYPE)

    def _taken(self, file: BinaryIO, remote: str) -> Delivery:
        file.seek(0)
        # By sender too: nobody else can use up what a site may send, or change ids to send more.
        self._rates.spend(("any site", remote), SITES_OF_SENDER)
        self._rates.spend((UsageReader(file).index.appliance_id, remote))
        file.seek(0)
        return carriage.take_bundle(self._plane.ingest, file, "wire")

    async def _receipts(self, request: web.Request) -> web.Response:
        header = request.headers.get("Authorization", "")
        signed = signed_requests.read_header(request.method, request.raw_path, header)
        remote = request.remote or ""
        self._rates.spend(("any site", remote), SITES_OF_SENDER)
        self._rates.spend((signed.appliance_id, remote))
        query = request.query
        if query.get("appliance") != signed.appliance_id:
            raise RequestRefused("The request is for another site than the one that signed it.")
        plane = self._plane
        # Who did not sign costs a read, and never waits for the database's one writer.
        now_ns = plane.clock.wall_ns()
        await plane.database.aread(lambda c: signed_requests.recognise(c, signed, now_ns))
        raw = await plane.database.arun(
            lambda connection: pulled(
                connection,
                signed,
                query.get("epoch", ""),
                query.get("head", ""),
                plane.identity.key,
                plane.clock.wall_ns(),
                plane.entropy,
            )
        )
        return web.Response(body=raw, content_type=RECEIPT_MEDIA_TYPE)

    async def _stripe(self, request: web.Request) -> web.Response:
        if self._webhook is None:
            raise StripeNotConfigured(
                "Billing through Stripe is not set up here.",
                next_step="Set [stripe] api_key and webhook_secret.",
            )
        raw = await self._body(request)
        known = await self._webhook(raw, request.headers.get("Stripe-Signature", ""))
        return web.json_response({"received": True, "new": known})

    def _operated(
        self, route: OperatorRoute
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            self._check_operator(request)
            body = await self._body(request)
            call = OperatorCall(self._plane, request.match_info, request.query, body)
            value = await asyncio.to_thread(route.handle, call)
            raw = msgspec.json.encode(value, enc_hook=str)
            return web.Response(body=raw, content_type="application/json")

        return handle

    def _check_operator(self, request: web.Request) -> None:
        self._rates.spend(("operator", request.remote or ""))
        shown = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        expected = f"Bearer {self._plane.identity.operator_token}".encode()
        if not hmac.compare_digest(shown, expected):
            raise OperatorDenied(
                "The operator's token is missing or wrong.",
                next_step="Send `Authorization: Bearer …` with what"
                " `cic control-plane operator-token` prints.",
            )

    async def _body(self, request: web.Request) -> bytes:
        """A small body, whole. Raises BadUpload, UploadTooLarge."""
        _refuse_encoded(request)
        try:
            async with asyncio.timeout(self._plane.settings.listen.body_s):
                return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise _too_large(_SMALL_BYTES) from error
        except TimeoutError as error:
            raise _too_slow() from error

    async def _spool(self, request: web.Request, file: BinaryIO) -> None:
        """Write the body into the file as it comes. Raises BadUpload, UploadTooLarge."""
        _refuse_encoded(request)
        most, size = self._plane.settings.ingest.bundle_bytes_max, 0
        if (request.content_length or 0) > most:
            raise _too_large(most)
        try:
            async with asyncio.timeout(self._plane.settings.listen.body_s):
                async for piece in request.content.iter_chunked(_PIECE_BYTES):
                    size += len(piece)
                    if size > most:
                        raise _too_large(most)
                    file.write(piece)  # into the page cache
        except TimeoutError as error:
            raise _too_slow() from error

    async def _in_thread(self, run: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, run)


def _refuse_encoded(request: web.Request) -> None:
    # Unpacking would let a small body become a large one.
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise BadUpload("The body is packed.", next_step="Send it without Content-Encoding.")


def _too_large(most: int) -> UploadTooLarge:
    return UploadTooLarge(
        f"The body has more than {most} bytes.",
        next_step="Send less at once; what is too large for the wire goes by hand.",
    )


def _too_slow() -> BadUpload:
    return BadUpload("The body did not come in time.", next_step="Send it again.")
