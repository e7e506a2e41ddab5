"""HTTP to the control plane, and nowhere else.

- The name is looked up by us, the answers are checked, and the connection goes to the checked
  address, so that a name that changes in between leads nowhere. The certificate is still that of
  the name.
- No redirects, no proxy unless the settings name one, nothing from the environment.
- Every wait has its limit, and so has every answer's size.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx
import msgspec

from appliance.security.signing import PEM_BYTES_MAX, PublicKey
from appliance.settings import Sync as SyncSettings
from appliance.sync.addresses import Address, acceptable, numeric
from appliance.sync.errors import ControlPlaneAway, ControlPlaneRefused, DocumentRefused

USAGE_TYPE: Final = "application/vnd.crosslogic.usage-bundle"
RECEIPT_TYPE: Final = "application/vnd.crosslogic.receipt-bundle"
ANSWER_BYTES_MAX: Final = 32 * 1024 * 1024
_ERROR_BYTES_MAX: Final = 64 * 1024
_AWAY_STEP: Final = "Nothing is lost: it is tried again. See `cic sync status`."


class _ErrorBody(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""
    next_step: str = ""


class _Failure(msgspec.Struct, frozen=True):
    error: _ErrorBody = _ErrorBody()


class Enrolled(msgspec.Struct, frozen=True):
    """What the control plane answers to an enrolment."""

    appliance_id: str
    key_pem: str
    customer: str = ""


@dataclass(frozen=True, slots=True)
class _Way:
    """How one request gets there: the URL that is connected to, and what it is said to be."""

    url: str
    headers: Mapping[str, str]
    extensions: Mapping[str, str]


class ControlPlane:
    """One control plane. Made by `connected`, which closes it."""

    def __init__(
        self, address: Address, settings: SyncSettings, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        """`transport` replaces the network in tests; None is the network."""
        self._address = address
        self._settings = settings
        try:
            self._http = httpx.AsyncClient(
                verify=_trust(settings.ca_file),
                trust_env=False,
                follow_redirects=False,
                proxy=settings.proxy,
                transport=transport,
                timeout=httpx.Timeout(settings.request_s, connect=settings.connect_s),
            )
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            raise ControlPlaneAway(
                f"The proxy cannot be used: {error}.",
                next_step="Correct sync.proxy: http://HOST:PORT or https://HOST:PORT.",
            ) from error

    async def close(self) -> None:
        await self._http.aclose()

    async def key(self) -> PublicKey:
        """The control plane's signing key, as it shows it. Nobody has checked it yet."""
        raw = await self._call("GET", "/v1/key", answer_bytes_max=PEM_BYTES_MAX)
        return PublicKey.from_pem(raw)

    async def enrol(self, code: str, enrolment: bytes) -> Enrolled:
        """`code` is `<id>.<secret>`: sent only after the pin was compared."""
        body = msgspec.json.encode({"code": code, "enrolment": enrolment.decode()})
        raw = await self._call(
            "POST",
            "/v1/enrol",
            body=body,
            content_type="application/json",
            answer_bytes_max=_ERROR_BYTES_MAX,
        )
        try:
            return msgspec.json.decode(raw, type=Enrolled)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DocumentRefused(
                f"The control plane's answer to the enrolment is not understood: {error}.",
                next_step="Check that the URL is that of a CrossLogic control plane.",
            ) from error

    async def send(self, bundle: bytes) -> bytes:
        """Ship a `.usage` bundle; the `.receipt` bundle that answers it."""
        return await self._call(
            "POST", "/v1/manifests", body=bundle, content_type=USAGE_TYPE, answers=RECEIPT_TYPE
        )

    async def pull(self, query: str, authorization: str) -> bytes:
        """The newest documents for this site; `query` is the one that was signed."""
        return await self._call(
            "GET",
            f"/v1/receipts?{query}",
            headers={"Authorization": authorization},
            answers=RECEIPT_TYPE,
        )

    def target(self, path: str) -> str:
        """The path as the control plane sees it, for what signs requests."""
        return self._address.path + path

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        answers: str | None = None,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
    ) -> bytes:
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        if content_type is not None:
            sent["Content-Type"] = content_type
        try:
            async with asyncio.timeout(self._settings.request_s):
                way = await self._way(path)
                async with self._http.stream(
                    method,
                    way.url,
                    content=body,
                    headers={**sent, **way.headers},
                    extensions=dict(way.extensions),
                ) as response:
                    return await _answer(response, answers, answer_bytes_max)
        except TimeoutError as error:
            raise self._away("it did not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise self._away(_reason(error)) from error

    async def _way(self, path: str) -> _Way:
        address = self._address
        host = f"[{address.host}]" if ":" in address.host else address.host
        named = f"{host}:{address.port}"
        if self._settings.proxy is not None or numeric(address.host):
            return _Way(f"{address.scheme}://{named}{address.path}{path}", {}, {})
        found = acceptable(address, await _look_up(address))
        connected = f"[{found[0]}]" if ":" in found[0] else found[0]
        return _Way(
            f"{address.scheme}://{connected}:{address.port}{address.path}{path}",
            {"Host": named if address.url.endswith(f":{address.port}{address.path}") else host},
            {"sni_hostname": address.host},
        )

    def _away(self, why: str) -> ControlPlaneAway:
        return ControlPlaneAway(
            f"The control plane {self._address.url} cannot be reached: {why}.",
            next_step=_AWAY_STEP,
        )


@asynccontextmanager
async def connected(
    address: Address,
    settings: SyncSettings,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[ControlPlane]:
    control_plane = ControlPlane(address, settings, transport)
    try:
        yield control_plane
    finally:
        await control_plane.close()


def _trust(ca_file: str | None) -> ssl.SSLContext:
    """The system's authorities, or those of a file alone. Raises ControlPlaneAway."""
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(Path(ca_file)))
    except (OSError, ssl.SSLError) as error:
        raise ControlPlaneAway(
            f"The file of authorities {ca_file} cannot be used: {error}.",
            next_step="Correct sync.ca_file: a PEM file with the authority's certificate.",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _look_up(address: Address) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM
    )
    # IPv4 first: a site's IPv6 is the more often half configured.
    ordered = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return [str(entry[4][0]) for entry in ordered]


async def _answer(response: httpx.Response, answers: str | None, bytes_max: int) -> bytes:
    refused = not response.is_success
    limit = _ERROR_BYTES_MAX if refused else bytes_max
    content = bytearray()
    async for piece in response.aiter_raw():
        content += piece
        if len(content) > limit:
            raise DocumentRefused(
                f"The control plane's answer is larger than {limit} bytes.",
                next_step="Check that the URL is that of a CrossLogic control plane.",
            )
    if refused:
        raise _refusal(response.status_code, bytes(content))
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    if answers is not None and kind != answers:
        raise DocumentRefused(
            f"The control plane answered with {kind or 'nothing'}, not with {answers}.",
            next_step="Check that the URL is that of a CrossLogic control plane.",
        )
    return bytes(content)


def _refusal(status: int, content: bytes) -> ControlPlaneRefused:
    try:
        body = msgspec.json.decode(content, type=_Failure).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = _ErrorBody()
    told = body.message or HTTPStatus(status).phrase if status in set(HTTPStatus) else body.message
    step = body.next_step
    if 300 <= status < 400:
        step = "Redirects are not followed: correct the control plane's URL."
    return ControlPlaneRefused(
        f"The control plane answered {status}: {told or 'no reason given'}",
        next_step=step,
        wire_code=body.code,
        status=status,
    )


def _reason(error: Exception) -> str:
    """The cause at the bottom: httpx often says nothing itself."""
    cause: BaseException = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__ or cause
    for each in (cause, error):
        if str(each):
            return str(each).rstrip(".")
    return type(error).__name__
