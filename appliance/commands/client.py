"""The admin API from a command's side: HTTP on the unix socket of a home.

The standard library's client, because a command is over in the time that a larger one takes to
load (measured: 0.22 s for httpx, 0.02 s for http.client).
"""

import hashlib
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from appliance.commands.context import Refused, cic_line, not_permitted, require_site
from appliance.wire.admin import ErrorBody
from appliance.wire.command import CommandError, ExitCode
from appliance.wire.home import Home
from appliance.wire.unix import socket_address

T = TypeVar("T")
Query = Mapping[str, str | int | None]

# Who starts a command may name it here: started again with the same, it changes nothing twice.
KEY_VARIABLE: Final = "CIC_IDEMPOTENCY_KEY"
TIMEOUT_S: Final = 30.0
_PIECE_BYTES: Final = 64 * 1024

_EXIT_CODES: Final = {
    400: ExitCode.USAGE,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    422: ExitCode.CONFIGURATION,  # a file that cannot be read
    503: ExitCode.UNREACHABLE,
}
# Reading and hashing the weights of a model may take as long as its disk takes.
HASH_TIMEOUT_S: Final = 3_600.0


class _UnixConnection(HTTPConnection):
    """HTTP on a unix socket. `timeout` bounds each wait: to connect, to send, to receive."""

    def __init__(self, address: str, timeout: float) -> None:
        super().__init__("appliance", timeout=timeout)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._address)


class AdminClient:
    """Asks the appliance of a home. Failures are CommandErrors with their exit code.

    `timeout_s` bounds the wait for an answer; work that reads large files asks for more.
    """

    def __init__(self, home: Home, *, timeout_s: float = TIMEOUT_S) -> None:
        require_site(home)
        self._home = home
        self._key = os.environ.get(KEY_VARIABLE, "")
        try:
            address = socket_address(home.admin_socket)
        except (FileNotFoundError, PermissionError) as error:
            raise self._not_running(error) from error
        self._http = _UnixConnection(address, timeout_s)

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
        return self._decode(self._call("GET", path, query), answer)

    def send(
        self,
        method: str,
        path: str,
        answer: type[T],
        body: msgspec.Struct | None = None,
        query: Query | None = None,
    ) -> T:
        """POST, PUT, PATCH or DELETE; `body` is sent as JSON."""
        return self._decode(self._call(method, path, query, body), answer)

    def lines(self, path: str, query: Query | None = None) -> Iterator[bytes]:
        """The lines of an answer that is NDJSON, as they come."""
        rest = b""
        with self._failures():
            response = self._ask("GET", path, query)
            # Not `for line in response`: that takes a connection that breaks for the end.
            while piece := response.read1(_PIECE_BYTES):
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole

    def _call(
        self, method: str, path: str, query: Query | None, body: msgspec.Struct | None = None
    ) -> bytes:
        with self._failures():
            return self._ask(method, path, query, body).read()

    def _ask(
        self, method: str, path: str, query: Query | None, body: msgspec.Struct | None = None
    ) -> HTTPResponse:
        present = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(present)}" if present else path
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        if self._key and method != "GET":
            headers["Idempotency-Key"] = request_key(self._key, method, target, content or b"")
        self._http.request(method, target, content, headers)
        response = self._http.getresponse()
        if response.status >= 400:
            raise _refusal(response.status, response.read())
        return response

    def _decode(self, content: bytes, answer: type[T]) -> T:
        try:
            return msgspec.json.decode(content or b"null", type=answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CommandError(
                f"The appliance's answer is not understood: {error}.",
                next_step="`cic --version` and the running appliance must be the same version.",
            ) from error

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            self._http.close()
            raise CommandError(
                "The appliance did not answer in time.",
                next_step=f"See its log, or `{cic_line(self._home, 'status')}`.",
                exit_code=ExitCode.UNREACHABLE,
            ) from error
        except (ConnectionRefusedError, FileNotFoundError, PermissionError) as error:
            raise self._not_running(error) from error
        except (HTTPException, OSError) as error:
            self._http.close()
            raise CommandError(
                f"The appliance broke off the connection: {error or type(error).__name__}.",
                next_step=f"Look at `{cic_line(self._home, 'status')}` and try again.",
                exit_code=ExitCode.UNREACHABLE,
            ) from error

    def _not_running(self, error: OSError) -> Refused:
        if isinstance(error, PermissionError):
            return not_permitted(self._home.admin_socket)
        return Refused(
            "not_running",
            f"The appliance of {self._home.state} does not run.",
            next_step=f"Start it with `{cic_line(self._home, 'serve')}`.",
            exit_code=ExitCode.UNREACHABLE,
        )


def request_key(key: str, method: str, target: str, content: bytes) -> str:
    """The key of one of the requests that a command makes.

    A command may make several, and one that was refused may come again changed: each has its own.
    """
    digest = hashlib.sha256(b"\0".join((method.encode(), target.encode(), content)))
    return f"{key}-{digest.hexdigest()[:32]}"


def object_path(collection: str, ref: str, *rest: str) -> str:
    """`/v1/<collection>/<ref>[/…]` with the reference quoted."""
    return "/".join(("/v1", collection, quote(ref, safe=""), *rest))


def _refusal(status: int, content: bytes) -> CommandError:
    try:
        body = msgspec.json.decode(content, type=ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = ErrorBody(code="bad_answer", message=f"The appliance answered HTTP {status}.")
    return Refused(
        body.code,
        body.message,
        next_step=body.next_step,
        exit_code=_EXIT_CODES.get(status, ExitCode.FAILED),
    )
