"""The ways from an agent to its appliance: a unix socket on one host, mutual TLS between hosts."""

import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import aiohttp

from agent.errors import IdentityBroken
from agent.identity import Identity
from appliance.domain.tls_names import APPLIANCE_NAME
from appliance.wire.unix import socket_address

_CONNECT_S: Final = 5.0


class Way(Protocol):
    """How messages reach the appliance. `base` is put before the name of a message."""

    @property
    def base(self) -> str: ...

    @property
    def server_name(self) -> str | None:
        """What the appliance's certificate must name; None: without TLS."""
        ...

    def connector(self) -> aiohttp.BaseConnector:
        """A new one for each session. Raises OSError, IdentityBroken."""
        ...

    def met(self) -> None:
        """It answered over a connection of the newest connector."""
        ...


class SocketWay:
    """The appliance of this host."""

    base = "http://appliance/agent/v1/"
    server_name: str | None = None

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def connector(self) -> aiohttp.BaseConnector:
        return aiohttp.UnixConnector(socket_address(self._socket), limit=1)

    def met(self) -> None:
        """Nobody needs it."""


class NodeWay:
    """The appliance of another host, which this node joined."""

    server_name: str | None = APPLIANCE_NAME

    def __init__(self, identity: Identity, met: Callable[[str], None]) -> None:
        self._identity = identity
        self._met = met
        self.base = f"{identity.about.server}/node/v1/"
        self._wires: list[socket.socket] = []  # of the newest connector

    def connector(self) -> aiohttp.BaseConnector:
        self._wires.clear()
        return aiohttp.TCPConnector(
            limit=1, ssl=node_context(self._identity), socket_factory=self._wire
        )

    def met(self) -> None:
        """Tell the address of this end: aiohttp has let go of the connection when it answers."""
        for wire in self._wires:
            with contextlib.suppress(OSError):  # it was another address of the appliance's name
                wire.getpeername()
                self._met(str(wire.getsockname()[0]))
                return

    def _wire(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, *_ = address
        self._wires = [wire for wire in self._wires if wire.fileno() >= 0]
        wire = socket.socket(family=family, type=kind, proto=protocol)
        wire.setblocking(False)
        self._wires.append(wire)
        return wire


def node_context(identity: Identity, *, shows: bool = True) -> ssl.SSLContext:
    """TLS 1.3 to the site's appliance and nobody else. Raises IdentityBroken.

    `shows` False: without this node's certificate, which TLS would refuse once it has expired.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(identity.ca_file)
        if shows:
            context.load_cert_chain(identity.papers_file)
    except OSError as error:  # ssl.SSLError is one
        raise IdentityBroken(
            f"The certificate of this node cannot be used: {error}.",
            next_step="Join again with a new token: `cic node token create --node NAME`.",
        ) from error
    return context


def address_of(server: str) -> tuple[str, int]:
    """Host and port of an https URL. Raises ValueError."""
    if any(c.isspace() for c in server):
        raise ValueError("write https://HOST:PORT")
    parts = urlsplit(server if "://" in server else f"https://{server}")
    if parts.scheme != "https" or not parts.hostname or parts.path not in {"", "/"}:
        raise ValueError("write https://HOST:PORT")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("write https://HOST:PORT")
    return parts.hostname, parts.port or 8444
