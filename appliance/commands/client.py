"""The admin API from a command's side: HTTP on the unix socket of a home."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from appliance.commands.context import Refused, cic_line, require_site
from appliance.wire.admin import ErrorBody
from appliance.wire.command import CommandError, ExitCode
from appliance.wire.home import Home
from appliance.wire.unix import socket_address

T = TypeVar("T")
Query = Mapping[str, str | int | None]

TIMEOUT_S: Final = 30.0

_EXIT_CODES: Final = {
    400: ExitCode.USAGE,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    503: ExitCode.UNREACHABLE,
}


class AdminClient:
    """One connection to the appliance of a home. Failures are CommandErrors with their exit code.

    `timeout_s` bounds the wait for an answer; work that reads large files asks for more.
    """

    def __init__(self, home: Home, *, timeout_s: float = TIMEOUT_S) -> None:
        require_site(home)
        self._home = home
        try:
            address = socket_address(home.admin_socket)
        except FileNotFoundError as error:
            raise self._not_running() from error
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=address),
            base_url="http://appliance",
            timeout=httpx.Timeout(timeout_s, connect=5.0),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str, answer: type[T], query: Query | None = None) -> T:
        return self._decode(self._send("GET", path, query), answer)

    def send(
        self,
        method: str,
        path: str,
        answer: type[T],
        body: msgspec.Struct | None = None,
        query: Query | None = None,
    ) -> T:
        """POST, PUT, PATCH or DELETE; `body` is sent as JSON."""
        return self._decode(self._send(method, path, query, body), answer)

    def lines(self, path: str, query: Query | None = None) -> Iterator[bytes]:
        """The lines of an answer that is NDJSON, as they come."""
        with (
            self._failures(),
            self._http.stream("GET", path, params=_present(query)) as response,
        ):
            if response.status_code >= 400:
                response.read()
                raise _refusal(response)
            rest = b""
            for piece in response.iter_bytes():
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
            if rest:
                raise CommandError("The appliance broke off its answer.", next_step="Try again.")

    def _send(
        self, method: str, path: str, query: Query | None, body: msgspec.Struct | None = None
    ) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"content-type": "application/json"}
        with self._failures():
            response = self._http.request(
                method, path, params=_present(query), content=content, headers=headers
            )
        if response.status_code >= 400:
            raise _refusal(response)
        return response

    def _decode(self, response: httpx.Response, answer: type[T]) -> T:
        try:
            return msgspec.json.decode(response.content or b"null", type=answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CommandError(
                f"The appliance's answer is not understood: {error}.",
                next_step="`cic --version` and the running appliance must be the same version.",
            ) from error

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise self._not_running() from error
        except httpx.TimeoutException as error:
            raise CommandError(
                "The appliance did not answer in time.",
                next_step=f"See its log, or `{cic_line(self._home, 'status')}`.",
                exit_code=ExitCode.UNREACHABLE,
            ) from error
        except httpx.HTTPError as error:
            raise CommandError(
                f"The appliance broke off the connection: {error}.",
                next_step=f"Look at `{cic_line(self._home, 'status')}` and try again.",
                exit_code=ExitCode.UNREACHABLE,
            ) from error

    def _not_running(self) -> CommandError:
        socket = self._home.admin_socket
        if socket.exists() and not os.access(socket, os.W_OK):
            return Refused(
                "permission_denied",
                f"You may not use {socket}.",
                next_step="Run it as the owner of that file, or as a member of its group.",
                exit_code=ExitCode.UNREACHABLE,
            )
        return Refused(
            "not_running",
            f"The appliance of {self._home.state} does not run.",
            next_step=f"Start it with `{cic_line(self._home, 'serve')}`.",
            exit_code=ExitCode.UNREACHABLE,
        )


def object_path(collection: str, ref: str, *rest: str) -> str:
    """`/v1/<collection>/<ref>[/…]` with the reference quoted."""
    return "/".join(("/v1", collection, quote(ref, safe=""), *rest))


def _present(query: Query | None) -> dict[str, str | int]:
    return {name: value for name, value in (query or {}).items() if value is not None}


def _refusal(response: httpx.Response) -> CommandError:
    try:
        body = msgspec.json.decode(response.content, type=ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = ErrorBody(
            code="bad_answer", message=f"The appliance answered HTTP {response.status_code}."
        )
    return Refused(
        body.code,
        body.message,
        next_step=body.next_step,
        exit_code=_EXIT_CODES.get(response.status_code, ExitCode.FAILED),
    )
