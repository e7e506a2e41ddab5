"""A control plane on loopback that keeps its books in memory and verifies with the real functions.

For what the site does; what the real one does is tested with the real one. Faults on demand:
`answers` are given instead of the next real ones, `cut_after` ends that many connections after the
manifests were taken and before the answer went out.
"""

import io
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from appliance.domain.clock import iso
from appliance.manifests.bundle import (
    RECEIPT_MEDIA_TYPE,
    CarriedDocument,
    UsageReader,
    write_receipts,
)
from appliance.manifests.codes import Code
from appliance.manifests.documents import NO_HASH, Disposition
from appliance.manifests.epochs import granted_state, make_grant
from appliance.manifests.keys import KnownSite, granted, open_enrolment, site_of
from appliance.manifests.reported import Accepted, ReportedState, check_chain
from appliance.manifests.verify import Finding, check_bytes
from appliance.security.signing import PublicKey
from appliance.sync.signatures import SCHEME, signed_bytes
from tests.fakes.vendor import DAY_NS, Vendor

_MS_NS = 1_000_000


@dataclass
class ControlPlane:
    """One site's control plane. `requests` tells what was asked, in order."""

    vendor: Vendor
    site: KnownSite
    now_ns: int
    state: ReportedState = field(default_factory=ReportedState)
    stored: dict[tuple[int, int], str] = field(default_factory=dict)
    documents: list[CarriedDocument] = field(default_factory=list)
    codes: dict[str, str] = field(default_factory=dict)  # one-time codes: id -> secret
    answers: list[web.Response] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    accepted: list[tuple[int, int]] = field(default_factory=list)
    cut_after: int = 0
    lease_days: int = 30
    newest: bytes | None = None
    base_url: str = ""
    nonces: set[str] = field(default_factory=set)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/v1/key", self._key)
        app.router.add_post("/v1/enrol", self._enrol)
        app.router.add_post("/v1/manifests", self._manifests)
        app.router.add_get("/v1/receipts", self._receipts)
        return app

    def take(self, epoch: int, seq: int, envelope: bytes, lines: bytes) -> Disposition:
        """What becomes of one manifest; the state goes on when it is accepted."""
        checked = check_bytes(envelope, lines, self.site)
        if isinstance(checked, Finding):
            return _disposition(epoch, seq, NO_HASH, checked)
        found = check_chain(
            self.state, checked, self.now_ns // _MS_NS, self.stored.get((epoch, seq))
        )
        if isinstance(found, Accepted):
            self.state = found.state
            self.stored[epoch, seq] = checked.sha256
            self.accepted.append((epoch, seq))
            return _disposition(epoch, seq, checked.sha256, Finding(found.code, ""))
        if found.code in {Code.FORK, Code.EPOCH_CLOSED}:
            self.state = replace(self.state, frozen=True)
        return _disposition(epoch, seq, checked.sha256, found)

    def receipt(self, dispositions: tuple[Disposition, ...] = ()) -> bytes:
        self.now_ns += 1_000 * _MS_NS
        lease = iso(self.now_ns + self.lease_days * DAY_NS) if self.lease_days else ""
        self.newest = self.vendor.sign(
            self.vendor.receipt(
                epoch=self.state.epoch,
                accepted_through=self.state.accepted_through,
                head_sha256=self.state.head_sha256 if self.state.accepted_through else NO_HASH,
                dispositions=dispositions,
                frozen=self.state.frozen,
                received_at=iso(self.now_ns),
                lease_until=lease,
            )
        )
        return self.newest

    def grant(self, key: PublicKey, reason: str = "restored from a backup") -> bytes:
        """Begin the next epoch on what was accepted; the grant waits to be pulled, too."""
        made = make_grant(self.state, self.site.appliance_id, key, reason, iso(self.now_ns))
        self.state = granted_state(self.state, made)
        self.site = granted(self.site, made)
        raw = self.vendor.sign(made)
        self.documents.append(CarriedDocument("epoch-grant", raw))
        return raw

    async def _key(self, _request: web.Request) -> web.Response:
        self.requests.append("key")
        return web.Response(text=self.vendor.key.public.pem)

    async def _enrol(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append("enrol")
        code_id, _, secret = body["code"].partition(".")
        enrolment, key = open_enrolment(body["enrolment"].encode())
        if self.codes.get(code_id) != secret or enrolment.code_id != code_id:
            return refusal(403, "enrolment_refused", "The code is not known.")
        del self.codes[code_id]
        self.site = site_of(enrolment.appliance_id, key, ())
        return web.json_response(
            {"appliance_id": enrolment.appliance_id, "key_pem": self.vendor.key.public.pem},
            status=201,
        )

    async def _manifests(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.requests.append("manifests")
        if self.answers:
            return self.answers.pop(0)
        reader = UsageReader(io.BytesIO(raw))
        dispositions = tuple(self.take(*manifest) for manifest in reader)
        answer = self.receipt(dispositions)
        if self.cut_after:
            self.cut_after -= 1
            assert request.transport is not None
            request.transport.abort()
        return self._bundle([CarriedDocument("receipt", answer)])

    async def _receipts(self, request: web.Request) -> web.Response:
        self.requests.append("receipts")
        self._check(request)
        newest = [] if self.newest is None else [CarriedDocument("receipt", self.newest)]
        return self._bundle([*self.documents, *newest])

    def _bundle(self, documents: list[CarriedDocument]) -> web.Response:
        body = write_receipts(self.site.appliance_id, documents)
        return web.Response(body=body, content_type=RECEIPT_MEDIA_TYPE)

    def _check(self, request: web.Request) -> None:
        match = re.fullmatch(
            rf"{SCHEME} ([^:]+):(\d+):([0-9a-f]+):([A-Za-z0-9_-]+)",
            request.headers["Authorization"],
        )
        assert match is not None
        appliance, seconds, nonce, signature = match.groups()
        assert appliance == request.query["appliance"] == self.site.appliance_id
        assert nonce not in self.nonces
        self.nonces.add(nonce)
        message = signed_bytes("GET", request.path_qs, int(seconds), nonce)
        raw = urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        assert any(known.key.verify(raw, message) for known in self.site.keys)


def refusal(status: int, code: str, message: str) -> web.Response:
    body: dict[str, Any] = {"error": {"code": code, "message": message, "next_step": "Ask."}}
    return web.Response(text=json.dumps(body), status=status, content_type="application/json")


def _disposition(epoch: int, seq: int, sha256: str, finding: Finding) -> Disposition:
    return Disposition(
        epoch=epoch, seq=seq, sha256=sha256, code=finding.code, detail=finding.detail
    )


@asynccontextmanager
async def served(control_plane: ControlPlane) -> AsyncIterator[ControlPlane]:
    runner = web.AppRunner(control_plane.app(), access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    control_plane.base_url = f"http://{host}:{port}"
    try:
        yield control_plane
    finally:
        await runner.cleanup()
