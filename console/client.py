"""The admin API as the console reads it: HTTP on the unix socket of a home.

Nothing here is awaited while a screen is painted. What changes the site is done by `cic` itself
(`children.py`); so this only reads, but for the chat.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from appliance.domain.errors import CrossLogicError
from appliance.wire.admin import ErrorBody
from appliance.wire.unix import socket_address

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

T = TypeVar("T")
Query = Mapping[str, str | int | float | None]

TIMEOUT_S: Final = 30.0
# An answer that streams may be silent for as long; the live stream sends something each interval.
SILENCE_S: Final = 120.0
_LINE_BYTES_MAX: Final = 64 * 1024 * 1024


class AdminError(CrossLogicError):
    """The appliance refused, or did not answer."""

    def __init__(self, code: str, message: str, *, next_step: str = "") -> None:
        super().__init__(message, next_step=next_step)
        self.code = code  # type: ignore[misc]  # the appliance's own, so one of each instance

    @property
    def sentence(self) -> str:
        """What happened, and what to do about it."""
        return f"{self.message} {self.next_step}".rstrip()


class Admin:
    """Reads from the appliance of a home. `socket` is its admin socket.

    Every method raises AdminError: `not_running`, `permission_denied`, `timeout`, `bad_answer`, or
    the code that the appliance gives.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._http: httpx.AsyncClient | None = None

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def get(self, path: str, answer: type[T], query: Query | None = None) -> T:
        with_failures = self._failures(path)
        async with with_failures:
            response = await self._client().get(path, params=_present(query))
            content = response.content
        if response.status_code >= 400:
            raise _refusal(response.status_code, content)
        return decoded(content or b"null", answer)

    async def lines(
        self,
        path: str,
        query: Query | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: msgspec.Struct | None = None,
        silence_s: float = SILENCE_S,
    ) -> AsyncGenerator[bytes, None]:
        """The lines of an answer as they come, without their ends. Closing it ends the request."""
        import httpx  # noqa: PLC0415 (0.07 s, and not before the first picture)

        content = None if body is None else msgspec.json.encode(body)
        sent = {**(headers or {}), **({} if content is None else {"Content-Type": _JSON})}
        async with (
            self._failures(path),
            self._client().stream(
                method,
                path,
                params=_present(query),
                headers=sent,
                content=content,
                timeout=httpx.Timeout(TIMEOUT_S, read=silence_s),
            ) as response,
        ):
            if response.status_code >= 400:
                raise _refusal(response.status_code, await response.aread())
            rest = bytearray()
            async for piece in response.aiter_raw():
                rest += piece
                if b"\n" in piece:
                    *whole, last = rest.split(b"\n")
                    rest = bytearray(last)
                    for line in whole:
                        yield bytes(line)
                elif len(rest) > _LINE_BYTES_MAX:
                    raise AdminError("bad_answer", "The appliance sent a line without an end.")
            if rest:
                yield bytes(rest)

    def _client(self) -> httpx.AsyncClient:
        import httpx  # noqa: PLC0415 (0.07 s, and not before the first picture)

        if self._http is None:
            try:
                address = socket_address(self._socket)
            except OSError as error:
                raise _not_running(self._socket, error) from error
            transport = httpx.AsyncHTTPTransport(uds=address, limits=httpx.Limits())
            self._http = httpx.AsyncClient(
                transport=transport, base_url="http://appliance", timeout=TIMEOUT_S
            )
        return self._http

    @asynccontextmanager
    async def _failures(self, path: str) -> AsyncIterator[None]:
        import httpx  # noqa: PLC0415 (0.07 s, and not before the first picture)

        try:
            yield
        except httpx.TimeoutException as error:
            raise AdminError(
                "timeout", f"The appliance did not answer {path} in time.", next_step="See its log."
            ) from error
        except httpx.ConnectError as error:
            raise _not_running(self._socket, error.__cause__ or error) from error
        except httpx.HTTPError as error:
            raise AdminError(
                "broken_off",
                f"The appliance broke off the connection: {error or type(error).__name__}.",
            ) from error


_JSON: Final = "application/json"


def _not_running(socket: Path, error: BaseException) -> AdminError:
    if isinstance(error, PermissionError) or "ermission" in str(error):
        return AdminError(
            "permission_denied",
            f"You may not use {socket}.",
            next_step="Run it as the owner of that file, or as a member of its group.",
        )
    return AdminError("not_running", "The appliance of this home does not run.")


def _present(query: Query | None) -> dict[str, str]:
    return {name: str(value) for name, value in (query or {}).items() if value is not None}


def _refusal(status: int, content: bytes) -> AdminError:
    try:
        body = msgspec.json.decode(content, type=ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return AdminError("bad_answer", f"The appliance answered HTTP {status}.")
    return AdminError(body.code, body.message, next_step=body.next_step)


def decoded(content: bytes, answer: type[T]) -> T:
    """An answer, or a line of one. AdminError: it is not what it should be."""
    try:
        return msgspec.json.decode(content, type=answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AdminError(
            "bad_answer",
            f"The appliance's answer is not understood: {error}.",
            next_step="The console and the running appliance must be of one version.",
        ) from error
