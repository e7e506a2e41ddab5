"""What a service says to systemd, and the sockets it is given (sd_notify(3), sd_listen_fds(3)).

Both are asked once, at the start of the process: the variables are taken out of the environment,
so that an engine or another child neither speaks for the service nor claims its sockets.
"""

import asyncio
import os
import socket
from collections.abc import MutableMapping
from typing import Final, Self

FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
_NOTIFY: Final = "NOTIFY_SOCKET"
_WATCHDOG: Final = ("WATCHDOG_USEC", "WATCHDOG_PID")
_LISTEN: Final = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class Notifier:
    """Speaks to the service manager; says nothing where there is none.

    `watchdog_s` is how often the manager must hear `alive`, or None when it does not watch.
    """

    def __init__(self, address: str | None, watchdog_s: float | None) -> None:
        self._address = address
        self.watchdog_s = watchdog_s

    @classmethod
    def taken(cls, environment: MutableMapping[str, str], pid: int) -> Self:
        """Take the manager's variables out of `environment`. A broken one counts as not there."""
        address = environment.pop(_NOTIFY, "")
        usec, watched = (environment.pop(name, "") for name in _WATCHDOG)
        if address.startswith("@"):  # Linux's abstract names begin with a zero byte
            address = "\0" + address[1:]
        elif not address.startswith("/"):
            return cls(None, None)
        mine = not watched or watched == str(pid)
        microseconds = int(usec) if mine and usec.isdecimal() else 0
        return cls(address, microseconds / 1_000_000 or None)

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={_line(status)}")

    def status(self, text: str) -> None:
        self._send(f"STATUS={_line(text)}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Ask for this much more time to start or to stop, counted from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def stopping(self, status: str, within_s: float) -> None:
        """`within_s`: how long the end may take; the unit's TimeoutStopSec holds without it."""
        self._send("STOPPING=1", f"STATUS={_line(status)}")
        self.extend(within_s)

    async def watched(self) -> None:
        """From the event loop: one that hangs falls silent, and the manager starts it anew."""
        while self.watchdog_s is not None:
            self.alive()
            await asyncio.sleep(self.watchdog_s / 3)

    def _send(self, *lines: str) -> None:
        """One datagram that never blocks: a manager that does not listen must not stop service."""
        if self._address is None:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            with socket.socket(socket.AF_UNIX, kind) as sock:
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            # A lost ping is the manager's to notice; there is nobody else to tell.
            return


def take_sockets(environment: MutableMapping[str, str], pid: int) -> dict[str, socket.socket]:
    """The listening sockets by their FileDescriptorName; none when they are for another process.

    A socket without a name, or with one that came before, is closed: nobody could ask for it.
    """
    count, owner, names = (environment.pop(name, "") for name in _LISTEN)
    if owner != str(pid) or not count.isdecimal():
        return {}
    named = names.split(":") if names else []
    sockets: dict[str, socket.socket] = {}
    for index in range(int(count)):
        descriptor = FIRST_FD + index
        name = named[index] if index < len(named) else ""
        if not name or name in sockets:
            os.close(descriptor)
            continue
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        sockets[name] = sock
    return sockets


def _line(text: str) -> str:
    """A status is one line: a second one would be read as another variable."""
    return " ".join(text.split())
