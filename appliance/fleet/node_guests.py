"""Who is let in at the node API's port: bounded in number and, without a certificate, in time.

Anybody on the network can connect. Who has shown no certificate can fetch the CA and use a token,
which takes seconds; nobody has more than a few connections for it.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

log = logging.getLogger(__name__)

_HANDSHAKE_S: Final = 5.0
_ANONYMOUS_S: Final = 30.0  # from the handshake to the end of the connection
_CONNECTIONS_MAX: Final = 4_096
_ANONYMOUS_MAX: Final = 256  # those in their handshake included
_ANONYMOUS_PER_PEER_MAX: Final = 32
# Of addresses that no node has spoken from, each and together: nodes find room beside them.
_STRANGER_MAX: Final = 16
_STRANGERS_MAX: Final = 192
_KNOWN_MAX: Final = 4_096  # addresses of nodes that are remembered
_PER_PEER_MAX: Final = 128  # a node needs a handful; none crowds out the others
_BACKLOG: Final = 128
_SWEEP_S: Final = 1.0
_ACCEPT_RETRY_S: Final = 0.2


@dataclass(slots=True, eq=False)
class _Guest:
    peer: str
    until_s: float | None  # None: it has shown a certificate
    transport: asyncio.Transport | None = None  # None: in its handshake

    def leave(self) -> None:
        # A transport of TLS that is closed already breaks when it is aborted, before Python 3.11.4.
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort()


class NodeGuests:
    """Accepts from `begin` to `end`."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        context: Callable[[], ssl.SSLContext],
    ) -> None:
        """`context` is asked with each connection: it keeps its certificate new."""
        self._listener = listener
        self._protocol = protocol
        self._context = context
        self._guests: set[_Guest] = set()
        self._known: dict[str, None] = {}  # where nodes have spoken from, newest last
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        self._start(self._accept())
        self._start(self._sweep())

    async def end(self) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for guest in self._guests:
            guest.leave()
        self._guests.clear()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listener)
            except OSError as error:  # no descriptors left, or the guest has gone already
                log.warning("node API cannot accept", extra={"why": str(error)})
                await asyncio.sleep(_ACCEPT_RETRY_S)
                continue
            peer = str(address[0])
            if not self._room(peer):
                connection.close()
                continue
            guest = _Guest(peer, loop.time() + _HANDSHAKE_S + _ANONYMOUS_S)
            self._guests.add(guest)
            self._start(self._welcome(guest, connection))

    def _room(self, peer: str) -> bool:
        self._forget_gone()
        anonymous = [guest for guest in self._guests if guest.until_s is not None]
        of_peer = Counter(guest.peer for guest in anonymous)[peer]
        if peer not in self._known:
            strangers = sum(guest.peer not in self._known for guest in anonymous)
            if of_peer >= _STRANGER_MAX or strangers >= _STRANGERS_MAX:
                return False
        return (
            len(self._guests) < _CONNECTIONS_MAX
            and len(anonymous) < _ANONYMOUS_MAX
            and of_peer < _ANONYMOUS_PER_PEER_MAX
            and sum(guest.peer == peer for guest in self._guests) < _PER_PEER_MAX
        )

    async def _welcome(self, guest: _Guest, connection: socket.socket) -> None:
        transport: asyncio.Transport | None
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._context(),
                ssl_handshake_timeout=_HANDSHAKE_S,
            )
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            transport = None
        except Exception:  # supervision: what goes wrong with one guest must not keep its place
            log.exception("node API failed a guest", extra={"peer": guest.peer})
            transport = None
        if transport is None:
            connection.close()
            self._guests.discard(guest)
            return
        guest.transport = transport
        if transport.get_extra_info("peercert"):
            guest.until_s = None
            self._remember(guest.peer)

    def _remember(self, peer: str) -> None:
        self._known.pop(peer, None)
        self._known[peer] = None
        while len(self._known) > _KNOWN_MAX:
            del self._known[next(iter(self._known))]

    async def _sweep(self) -> None:
        """Forget who has gone, and show out who has been here too long without a certificate."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_S)
            now_s = loop.time()
            for guest in self._guests:
                if guest.until_s is not None and now_s >= guest.until_s:
                    guest.leave()
            self._forget_gone()

    def _forget_gone(self) -> None:
        gone = {g for g in self._guests if g.transport is not None and g.transport.is_closing()}
        self._guests -= gone


def listening_socket(host: str, port: int, *, or_any: bool = False) -> socket.socket:
    """`or_any`: on any free port where that one is taken. Raises OSError, OverflowError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            # Another listener with the same option shows itself only here.
            listener.listen(_BACKLOG)
        except OSError as error:
            if not or_any or error.errno != errno.EADDRINUSE:
                raise
            with contextlib.closing(listener):
                return listening_socket(host, 0)
    except BaseException:
        listener.close()
        raise
    return listener
