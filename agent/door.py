"""The door of a node: lets the appliance in, over mutual TLS, to the engines on the loopback.

`python -m agent.door FOLDER` is a process of its own. It lives on when the agent ends, so that a
stream that runs has nothing to do with the agent's life.

- Who comes must show a certificate of the site's CA that names the appliance; nobody else's will
  do, another node's neither.
- The name asked for (SNI) chooses the engine. The door speaks no HTTP: it moves bytes.
- What leads where, and with which certificate, the agent writes into FOLDER/plan.json. The file is
  read again, when it has changed, before a handshake: the next connection finds it in force.
- FOLDER/open.json tells the agent where the door listens, once it does. It is touched every few
  seconds: a door that hangs touches nothing.
- SIGTERM: take nobody in any more, end when the last connection has ended.
"""

import asyncio
import contextlib
import ipaddress
import logging
import os
import resource
import signal
import socket
import ssl
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.durable import write_message
from agent.pump import AskingLeg, Leg
from appliance.domain.tls_names import APPLIANCE_NAME
from appliance.wire import logs

log = logging.getLogger("agent.door")

PLAN_FILE: Final = "plan.json"
OPEN_FILE: Final = "open.json"

_HANDSHAKE_S: Final = 5.0
_CONNECT_S: Final = 3.0  # to an engine on this host
_CLOSE_S: Final = 5.0  # for what was written, and the other side's farewell
_BACKLOG: Final = 512
_CONNECTIONS_MAX: Final = 8_192
_HANDSHAKES_MAX: Final = 1_024
_HANDSHAKES_PER_PEER_MAX: Final = 512  # of an address that has been the appliance's
# Of all other addresses, each and together: whoever knocks there leaves room for the appliance.
_HANDSHAKES_PER_STRANGER_MAX: Final = 64
_HANDSHAKES_OF_STRANGERS_MAX: Final = 256
_HOSTS_MAX: Final = 16  # addresses of the appliance that are remembered
_ACCEPT_RETRY_S: Final = 0.2
_TOUCH_S: Final = 3.0
_REFUSED_LOGGED_S: Final = 10.0  # between two lines about those turned away
# An appliance that is cut off tells nobody. Its engine's work is for nothing after so long.
_KEEPALIVE_IDLE_S: Final = 10
_KEEPALIVE_EVERY_S: Final = 5
_UNACKNOWLEDGED_S: Final = 30


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where an engine listens, on this host."""

    host: str
    port: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent wants of its door. The files are PEM."""

    address: str  # of this host: where to listen
    port: int | None  # tried first; None, or taken by another: any that is free
    certificate_file: str  # with what stands between it and the CA
    key_file: str
    ca_file: str
    routes: dict[str, Route]  # by the name asked for


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """Where the door with this process listens."""

    pid: int
    address: str
    port: int


class _Asked(ssl.SSLObject):
    """A handshake that remembers the name asked for."""

    name: str | None = None


class Papers:
    """The plan and its certificate as they are on disk, read again when they have changed."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError, msgspec.DecodeError, ssl.SSLError: there is nothing to begin with."""
        self._path = folder / PLAN_FILE
        self._plan_stamp = _stamp(self._path)
        self.plan = self._read()
        self._tls_stamp = self._tls_files()
        self.context = self._load()

    def refresh(self) -> None:
        """Read what has changed. What cannot be read is left as it was, until it changes again."""
        try:
            stamp = _stamp(self._path)
            if stamp != self._plan_stamp:
                self._plan_stamp = stamp
                self.plan = self._read()
            files = self._tls_files()
            if files != self._tls_stamp:
                self._tls_stamp = files
                self.context = self._load()
                log.info("door has another certificate")
        except (OSError, msgspec.DecodeError) as error:  # ssl.SSLError is an OSError
            log.warning("door cannot read its papers", extra={"why": str(error)})

    def _read(self) -> Plan:
        return msgspec.json.decode(self._path.read_bytes(), type=Plan)

    def _tls_files(self) -> tuple[object, ...]:
        plan = self.plan
        return tuple(
            (name, _stamp(Path(name)))
            for name in (plan.certificate_file, plan.key_file, plan.ca_file)
        )

    def _load(self) -> ssl.SSLContext:
        plan = self.plan
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0  # who comes shows its certificate each time
        context.load_verify_locations(plan.ca_file)
        context.load_cert_chain(plan.certificate_file, plan.key_file)
        context.sslobject_class = _Asked
        context.sni_callback = self._asked  # type: ignore[assignment]  # typeshed: SSLSocket alone
        return context

    def _asked(self, handshake: _Asked, name: str | None, _context: ssl.SSLContext) -> None:
        """Whoever asks for what is not here learns it after it has shown who it is, not before."""
        self.refresh()
        handshake.name = name
        handshake.context = self.context


class Door:
    """Listens from `open` until it is told to close; `run` ends when its last guest has left."""

    def __init__(self, folder: Path, papers: Papers) -> None:
        self._folder = folder
        self._papers = papers
        self._closing = asyncio.Event()
        self._left = asyncio.Event()
        self._open = 0
        self._handshakes: Counter[str] = Counter()
        self._hosts: dict[str, None] = {}  # where the appliance has spoken from, newest last
        self._refused = 0
        self._refused_logged_s = 0.0
        self._listener: socket.socket | None = None

    def open(self) -> Opened:
        """Listen, and say where. Raises OSError: the address is not, or no more, this host's."""
        plan = self._papers.plan
        self._listener = _listen(plan.address, plan.port)
        opened = Opened(pid=os.getpid(), address=plan.address, port=self._listener.getsockname()[1])
        write_message(self._folder / OPEN_FILE, opened)
        log.info("door open", extra={"address": opened.address, "port": opened.port})
        return opened

    def close(self) -> None:
        """Take nobody in any more."""
        self._closing.set()

    async def run(self) -> None:
        assert self._listener is not None  # opened
        with self._listener:
            async with asyncio.TaskGroup() as tasks:
                accepting = tasks.create_task(self._accept(self._listener, tasks))
                while not self._closing.is_set():
                    with contextlib.suppress(OSError):  # the disk is full, or the file is gone
                        os.utime(self._folder / OPEN_FILE)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_TOUCH_S):
                            await self._closing.wait()
                accepting.cancel()
                self._listener.close()
                log.info("door closes", extra={"connections": self._open})
                while self._open:
                    self._left.clear()
                    await self._left.wait()

    async def _accept(self, listener: socket.socket, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                guest, address = await loop.sock_accept(listener)
            except OSError as error:  # no descriptors left, or the guest has gone already
                log.warning("door cannot accept", extra={"why": str(error)})
                await asyncio.sleep(_ACCEPT_RETRY_S)
                continue
            peer = str(address[0])
            if not self._room(peer):
                guest.close()
                self._refuse("too many connections", peer)
                continue
            self._open += 1
            self._handshakes[peer] += 1
            tasks.create_task(self._welcome(guest, peer))

    def _room(self, peer: str) -> bool:
        if self._open >= _CONNECTIONS_MAX or self._handshakes.total() >= _HANDSHAKES_MAX:
            return False
        if peer in self._hosts:
            return self._handshakes[peer] < _HANDSHAKES_PER_PEER_MAX
        strangers = self._handshakes.total() - sum(self._handshakes[host] for host in self._hosts)
        return (
            self._handshakes[peer] < _HANDSHAKES_PER_STRANGER_MAX
            and strangers < _HANDSHAKES_OF_STRANGERS_MAX
        )

    def _remember(self, peer: str) -> None:
        self._hosts.pop(peer, None)
        self._hosts[peer] = None
        while len(self._hosts) > _HOSTS_MAX:
            del self._hosts[next(iter(self._hosts))]

    async def _welcome(self, guest: socket.socket, peer: str) -> None:
        leg: Leg | None = None
        try:
            leg = await self._handshake(guest, peer)
            if leg is not None:
                await self._lead(leg, peer)
        except Exception:  # supervision: what goes wrong with one guest is not the others' affair
            log.exception("door failed a guest", extra={"peer": peer})
            if leg is not None:
                leg.abort()
        finally:
            self._handshakes[peer] -= 1
            if not self._handshakes[peer]:
                del self._handshakes[peer]
            if leg is None:
                self._gone()

    async def _handshake(self, guest: socket.socket, peer: str) -> Leg | None:
        loop = asyncio.get_running_loop()
        leg = AskingLeg(self._gone)
        try:
            guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _watch_peer(guest)
            await loop.connect_accepted_socket(
                lambda: leg,
                guest,
                ssl=self._papers.context,
                ssl_handshake_timeout=_HANDSHAKE_S,
                ssl_shutdown_timeout=_CLOSE_S,
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            guest.close()
            self._refuse(getattr(error, "reason", None) or str(error) or "no handshake", peer)
            return None
        return leg

    async def _lead(self, leg: Leg, peer: str) -> None:
        """To the engine that was asked for."""
        route = self._route(leg, peer)
        engine = None if route is None else await _reach(route)
        if engine is None:
            # Unanswered, as by an engine that has just died: who asks tries another replica.
            leg.abort()
        else:
            leg.join(engine)

    def _route(self, leg: Leg, peer: str) -> Route | None:
        if leg.transport is None:
            return None
        handshake = leg.transport.get_extra_info("ssl_object")
        if not _is_appliance(handshake.getpeercert()):
            self._refuse("not the appliance", peer)
            return None
        self._remember(peer)
        route = self._papers.plan.routes.get(handshake.name or "")
        if route is None:
            self._refuse("no such engine", peer)
        return route

    def _gone(self) -> None:
        self._open -= 1
        self._left.set()

    def _refuse(self, why: str, peer: str) -> None:
        """Count, and tell now and then: whoever knocks all the time must not fill the disk."""
        self._refused += 1
        now_s = time.monotonic()
        if now_s - self._refused_logged_s >= _REFUSED_LOGGED_S:
            extra = {"why": why, "peer": peer, "count": self._refused}
            log.warning("door turned somebody away", extra=extra)
            self._refused, self._refused_logged_s = 0, now_s


async def _reach(route: Route) -> Leg | None:
    """A connection to an engine of this host; None: it takes none, or is not of this host."""
    if not ipaddress.ip_address(route.host).is_loopback:
        return None
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, leg = await loop.create_connection(Leg, route.host, route.port)
    except (OSError, TimeoutError):
        return None
    return leg


def _is_appliance(certificate: dict[str, Any] | None) -> bool:
    names = () if certificate is None else certificate.get("subjectAltName", ())
    return ("DNS", APPLIANCE_NAME) in names


def _listen(address: str, port: int | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port or 0))
        except OSError:
            if port is None:
                raise
            listener.bind((address, 0))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _watch_peer(guest: socket.socket) -> None:
    """Have the kernel end a connection whose other end has fallen silent."""
    guest.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
    guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_EVERY_S)
    guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_S * 1_000)


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


async def serve(folder: Path) -> None:
    """Be the door of this folder until SIGTERM and the last guest's leave."""
    door = Door(folder, Papers(folder))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, door.close)
    door.open()
    await door.run()


def main() -> None:
    logs.configure("info")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold prompts
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        # Not uvloop: closing its TLS loses what was written last, if the other side reads slowly.
        asyncio.run(serve(Path(sys.argv[1])))
    except (OSError, msgspec.DecodeError) as error:
        log.critical("door cannot open", extra={"why": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()
