"""Where the content of models comes from: the appliance, over mutual TLS, in a thread."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Final

from agent.errors import ModelAway

_TIMEOUT_S: Final = 15.0  # of each wait, not of the whole
_CHUNK_BYTES: Final = 1024 * 1024
_PATH: Final = "/node/v1/models/"


@dataclass(frozen=True, slots=True)
class Server:
    """The appliance's node API as it is reached now. `context` None: without TLS, in tests."""

    host: str
    port: int
    name: str  # that its certificate must have
    context: ssl.SSLContext | None


class _Connection(HTTPConnection):
    """HTTP to an address, verified by a name that is not the address."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.host, server.port, timeout=_TIMEOUT_S)
        self._server = server

    def connect(self) -> None:
        plain = socket.create_connection((self._server.host, self._server.port), _TIMEOUT_S)
        context = self._server.context
        if context is None:
            self.sock = plain
            return
        try:
            self.sock = context.wrap_socket(plain, server_hostname=self._server.name)
        except BaseException:
            plain.close()
            raise


class ModelSource:
    """`server` tells where the appliance is now and with which certificate; None: nowhere yet."""

    def __init__(self, server: Callable[[], Server | None]) -> None:
        self._server = server

    def fetch(self, sha256: str, offset: int) -> Iterator[bytes]:
        """The content from `offset` on, as it comes; blocks. Raises ModelAway."""
        server = self._server()
        if server is None:
            raise ModelAway("The appliance is not reached yet.")
        try:
            with closing(_Connection(server)) as connection:
                headers = {"Range": f"bytes={offset}-"} if offset else {}
                connection.request("GET", _PATH + sha256, headers=headers)
                response = connection.getresponse()
                if response.status != (206 if offset else 200):
                    raise ModelAway(f"The appliance answers {response.status} for a model's file.")
                while chunk := response.read(_CHUNK_BYTES):
                    yield chunk
        except (OSError, HTTPException) as error:
            raise ModelAway(
                f"The copy of a model broke off: {error or type(error).__name__}."
            ) from error
