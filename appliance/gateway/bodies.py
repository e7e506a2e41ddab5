"""Taking in the bodies of requests: bounded one by one, all together, and in time."""

import asyncio
from typing import Final

from aiohttp.web_protocol import RequestPayloadError

from appliance.domain.ids import TenantId
from appliance.gateway import head
from appliance.gateway.call import Call
from appliance.gateway.errors import (
    BodyTooLarge,
    ExpectationFailed,
    MalformedHttp,
    Overloaded,
    RequestTimeout,
    UnsupportedMedia,
)
from appliance.gateway.routes import Route

# Of all bodies at once, from the first byte until the request ends. The largest allowed body must
# always fit when nothing else is held.
HELD_BYTES_MAX: Final = 32 * 1024 * 1024
# Small bodies have a pot of their own, so that no large ones keep them out.
SMALL_BYTES_MAX: Final = 64 * 1024
SMALL_HELD_BYTES_MAX: Final = 32 * 1024 * 1024
_JSON: Final = "application/json"
_FORM: Final = "multipart/form-data"


def check_head(call: Call, route: Route, body_bytes_max: int) -> bool:
    """Refuse by the head alone, before a byte of the body is read; else tell if it may be large."""
    headers = call.headers
    if "Content-Encoding" in headers:
        raise UnsupportedMedia("The body must not be compressed.", next_step="Send it as it is.")
    given = headers.get("Content-Type")
    wanted = _FORM if route.multipart else _JSON
    if given is not None and given.partition(";")[0].strip().lower() != wanted:
        raise UnsupportedMedia(f"The body must be {wanted}.")
    coding = headers.get("Transfer-Encoding")
    if coding is not None and coding.lower() != "chunked":
        raise MalformedHttp("The only transfer coding that is understood is chunked.")
    declared = headers.get("Content-Length")
    if declared is not None and int(declared) > body_bytes_max:
        raise too_large(body_bytes_max)
    expect = headers.get("Expect")
    if expect is not None and (expect.lower() != "100-continue" or not call.version11):
        raise ExpectationFailed("The only expectation that can be met is 100-continue.")
    return declared is None or int(declared) > SMALL_BYTES_MAX


def too_large(body_bytes_max: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {body_bytes_max} bytes.")


class Pot:
    """Bytes held together, shared by tenants.

    A tenant may have as much as it leaves free for others. So one alone gets half, two a third
    each, and whoever comes next still finds room. The first body of a tenant only has to fit.
    """

    __slots__ = ("_of", "bytes", "bytes_max")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self._of: dict[TenantId, int] = {}

    def take(self, tenant_id: TenantId, more_bytes: int, own_bytes: int) -> None:
        """Raise Overloaded when there is no room. `own_bytes`: what this body has here already."""
        held = self._of.get(tenant_id, 0)
        total = self.bytes + more_bytes
        free = self.bytes_max - total
        if free < 0 or (held > own_bytes and held + more_bytes > free):
            raise Overloaded("Too many large requests at once.", retry_after_s=1)
        self._of[tenant_id] = held + more_bytes
        self.bytes = total

    def give(self, tenant_id: TenantId, fewer_bytes: int) -> None:
        self.bytes -= fewer_bytes
        left = self._of[tenant_id] - fewer_bytes
        if left:
            self._of[tenant_id] = left
        else:
            del self._of[tenant_id]  # tenants come and go


class Bodies:
    """What is held of bodies, over all requests."""

    __slots__ = ("_max", "_timeout_s", "large", "small")

    def __init__(self, body_bytes_max: int, timeout_s: float) -> None:
        self._max = body_bytes_max
        self._timeout_s = timeout_s
        self.large = Pot(max(HELD_BYTES_MAX, body_bytes_max))
        self.small = Pot(SMALL_HELD_BYTES_MAX)

    @property
    def held_bytes(self) -> int:
        return self.large.bytes + self.small.bytes

    def hold(self, tenant_id: TenantId) -> "Holding":
        """Room for one body: a context that gives it back at the end."""
        return Holding(self, tenant_id)

    async def read(self, call: Call, holding: "Holding") -> bytes:
        """The whole body. Raises BodyTooLarge, RequestTimeout, MalformedHttp, Overloaded."""
        payload = call.payload
        if not call.unread and payload.total_bytes <= self._max:
            holding.grow(payload.total_bytes)
            return payload.read_nowait()
        declared = call.headers.get("Content-Length")
        if declared is not None:
            # Room for all of it, or none: several that stop each other half way help nobody.
            holding.grow(int(declared))
        if call.headers.get("Expect") is not None:
            call.write(head.CONTINUE)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._pieces(call, holding, counted=declared is not None)
        except TimeoutError as error:
            raise RequestTimeout("The body did not come in time.") from error
        except RequestPayloadError as error:
            raise MalformedHttp("The body's framing is not valid HTTP/1.1.") from error

    async def _pieces(self, call: Call, holding: "Holding", *, counted: bool) -> bytes:
        pieces = []
        while piece := await call.payload.readany():
            if not counted:
                holding.grow(len(piece))
            if holding.bytes > self._max:
                raise too_large(self._max)
            pieces.append(piece)
        return b"".join(pieces)


class Holding:
    """The bytes of one body: in the pot of small ones until there are too many."""

    __slots__ = ("_bodies", "_pot", "_tenant_id", "bytes")

    def __init__(self, bodies: Bodies, tenant_id: TenantId) -> None:
        self._bodies = bodies
        self._pot = bodies.small
        self._tenant_id = tenant_id
        self.bytes = 0

    def __enter__(self) -> "Holding":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bytes:
            self._pot.give(self._tenant_id, self.bytes)

    def grow(self, more_bytes: int) -> None:
        """Raise Overloaded when there is no room for more."""
        if not more_bytes:
            return
        own_bytes = self.bytes
        total = own_bytes + more_bytes
        pot, large = self._pot, self._bodies.large
        if total > SMALL_BYTES_MAX and pot is not large:
            large.take(self._tenant_id, total, 0)
            if own_bytes:
                pot.give(self._tenant_id, own_bytes)
            self._pot = large
        else:
            pot.take(self._tenant_id, more_bytes, own_bytes)
        self.bytes = total
