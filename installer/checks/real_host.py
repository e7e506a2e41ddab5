"""The server this program runs on."""

from __future__ import annotations

import ipaddress
import locale
import os
import stat
import subprocess
import tempfile
import threading
import time
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from installer.checks.host import COMMAND_TIMEOUT_S, FileFacts, Output, SpaceFacts

_READ_PIECE_BYTES, _READ_PIECES_MAX = 64 * 1024, 1024
_SYNC_TIMES = 9
_SYNC_BUDGET_S = 0.8
_COMMAND_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "LANG": "C"}


class RealHost:
    """Reads /proc, /sys and /etc and runs fixed commands; changes nothing but one probe file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outputs: dict[tuple[str, ...], Future[Output]] = {}

    def read(self, path: str) -> str:
        parts: list[bytes] = []
        # In pieces and unbuffered: the kernel refuses one large read of a sysctl.
        with Path(path).open("rb", buffering=0) as file:
            while len(parts) < _READ_PIECES_MAX and (part := file.read(_READ_PIECE_BYTES)):
                parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")

    def names(self, path: str) -> tuple[str, ...]:
        try:
            return tuple(sorted(os.listdir(path)))  # noqa: PTH208 (names alone are wanted)
        except (FileNotFoundError, NotADirectoryError):
            return ()

    def facts(self, path: str) -> FileFacts | None:
        try:
            seen = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return FileFacts(stat.S_IMODE(seen.st_mode), seen.st_ino, stat.S_ISDIR(seen.st_mode))

    def link(self, path: str) -> str | None:
        try:
            return str(Path(path).readlink())
        except OSError:
            return None

    def space(self, path: str) -> SpaceFacts:
        seen = os.statvfs(_nearest(path))
        return SpaceFacts(
            seen.f_bavail * seen.f_frsize,
            seen.f_blocks * seen.f_frsize,
            seen.f_favail,
            seen.f_files,
        )

    def run(self, *command: str) -> Output:
        """A command is run once, however many checks ask for it at the same time."""
        with self._lock:
            answer = self._outputs.get(command)
            mine = answer is None
            if answer is None:
                answer = self._outputs[command] = Future()
        if mine:
            try:
                answer.set_result(_run(command))
            except (OSError, TimeoutError) as error:
                answer.set_exception(error)
        return answer.result(COMMAND_TIMEOUT_S + 0.5)

    def variables(self) -> frozenset[str]:
        return frozenset(os.environ)

    def no_proxy_covers(self, address: str) -> bool:
        bypassed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        if proxy_bypass_environment(address, {"no": bypassed}):
            return True
        return any(_in_network(address, part.strip()) for part in bypassed.split(","))

    def speaks_utf8(self) -> bool:
        for name in ("LC_ALL", "LC_CTYPE", "LANG"):
            if value := os.environ.get(name):
                return value.lower().replace("-", "").endswith("utf8")
        return locale.getpreferredencoding(False).lower().replace("-", "") == "utf8"

    def is_root(self) -> bool:
        return os.geteuid() == 0

    def machine(self) -> str:
        return os.uname().machine

    def libc(self) -> tuple[str, str]:
        try:
            told = os.confstr("CS_GNU_LIBC_VERSION") or ""
        except (ValueError, OSError):
            return ("another C library", "")
        name, _, version = told.partition(" ")
        return (name or "another C library", version)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def own_processes(self) -> frozenset[str]:
        family: set[str] = set()
        process = str(os.getpid())
        while process not in {"0", "", *family}:
            family.add(process)
            try:
                status = self.read(f"/proc/{process}/status")
            except OSError:
                break
            lines = [line for line in status.splitlines() if line.startswith("PPid:")]
            process = lines[0].split()[1] if lines else ""
        return frozenset(family)

    def socket_owner(self, inode: int) -> str | None:
        wanted = f"socket:[{inode}]"
        for process in self.names("/proc"):
            if not process.isdigit():
                continue
            try:
                if any(
                    self.link(f"/proc/{process}/fd/{number}") == wanted
                    for number in self.names(f"/proc/{process}/fd")
                ):
                    return self.read(f"/proc/{process}/comm").strip()
            except OSError:
                continue
        return None

    def sync_latency_s(self, path: str) -> float:
        taken: list[float] = []
        began = time.monotonic()
        with tempfile.NamedTemporaryFile(dir=_nearest(path), prefix=".crosslogic-probe-") as file:
            while len(taken) < _SYNC_TIMES and time.monotonic() - began < _SYNC_BUDGET_S:
                before = time.monotonic()
                file.write(b"\0" * 4096)
                file.flush()
                os.fsync(file.fileno())
                taken.append(time.monotonic() - before)
        return sorted(taken)[len(taken) // 2]


def _nearest(path: str) -> Path:
    """The path, or the nearest folder above it that is there."""
    folder = Path(path)
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def _run(command: tuple[str, ...]) -> Output:
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_COMMAND_ENVIRONMENT,
        text=True,
        errors="replace",
    ) as child:
        try:
            out, err = child.communicate(timeout=COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # One that hangs in the kernel cannot even be killed; this thread then stays behind in
            # the wait for it, and the runner goes on without it.
            child.kill()
            raise TimeoutError(f"{command[0]} did not end in {COMMAND_TIMEOUT_S} s") from None
    return Output(child.returncode, out, err)


def _in_network(address: str, network: str) -> bool:
    try:
        return "/" in network and ipaddress.ip_address(address) in ipaddress.ip_network(
            network, strict=False
        )
    except ValueError:
        return False
