"""Taking in the bodies of requests: bounded one by one, all together, and in time."""

import asyncio
from typing import Final

from aiohttp.web_protocol import RequestPayloadError

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
_JSON: Final = "application/json"
_FORM: Final = "multipart/form-data"


def check_head(call: Call, route: Route, body_bytes_max: int) -> None:
    """Refuse by the head alone, before a byte of the body is read."""
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


def too_large(body_bytes_max: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {body_bytes_max} bytes.")


class Bodies:
    """What is held of bodies, over all requests."""

    __slots__ = ("_held_bytes", "_held_bytes_max", "_max", "_timeout_s")

    def __init__(self, body_bytes_max: int, timeout_s: float) -> None:
        self._max = body_bytes_max
        self._held_bytes_max = max(HELD_BYTES_MAX, body_bytes_max)
        self._timeout_s = timeout_s
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def hold(self) -> "Holding":
        """Room for one body: a context that gives it back at the end."""
        return Holding(self)

    def shrink(self, fewer_bytes: int) -> None:
        self._held_bytes -= fewer_bytes

    def grow(self, more_bytes: int) -> None:
        if self._held_bytes + more_bytes > self._held_bytes_max:
            raise Overloaded("Too many large requests at once.", retry_after_s=1)
        self._held_bytes += more_bytes

    async def read(self, call: Call, holding: "Holding") -> bytes:
        """The whole body. Raises BodyTooLarge, RequestTimeout, MalformedHttp, Overloaded."""
        payload = call.payload
        if not call.unread and payload.total_bytes <= self._max:
            holding.grow(payload.total_bytes)
            return payload.read_nowait()
        if call.headers.get("Expect") is not None:
            call.write(head.CONTINUE)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._pieces(call, holding)
        except TimeoutError as error:
            raise RequestTimeout("The body did not come in time.") from error
        except RequestPayloadError as error:
            raise MalformedHttp("The body's framing is not valid HTTP/1.1.") from error

    async def _pieces(self, call: Call, holding: "Holding") -> bytes:
        pieces = []
        while piece := await call.payload.readany():
            holding.grow(len(piece))
            if holding.bytes > self._max:
                raise too_large(self._max)
            pieces.append(piece)
        return b"".join(pieces)


class Holding:
    """The bytes of one body."""

    __slots__ = ("_bodies", "bytes")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.bytes = 0

    def __enter__(self) -> "Holding":
        return self

    def __exit__(self, *_: object) -> None:
        self._bodies.shrink(self.bytes)

    def grow(self, more_bytes: int) -> None:
        self._bodies.grow(more_bytes)
        self.bytes += more_bytes
