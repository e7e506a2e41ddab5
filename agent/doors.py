"""Keeps the door of this node open: one process, started, found again, replaced.

- The door outlives the agent, as engines do: it is recorded by pid, start time and boot, and the
  next agent finds it by that.
- A door that has ended is started again, after a wait that doubles. One that runs and does not
  work any more (it no longer touches its file) is killed: nobody gets through it.
- Where the address of this host changed, or the release, another door opens and the old one is
  asked to end: it does when the last connection through it has.
"""

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from agent import host
from agent.door import OPEN_FILE, PLAN_FILE, Opened, Plan, Route
from agent.durable import read_message, write_message
from appliance.domain.clock import Clock
from appliance.domain.ids import NodeId, ReplicaId
from appliance.domain.tls_names import replica_name
from appliance.wire.agent import ReplicaReport

log = logging.getLogger(__name__)

PORT: Final = 8445  # tried first, so that a firewall between gateway and node can name one
OWNER_VARIABLE: Final = "CROSSLOGIC_DOOR_OWNER"
_RECORD_FILE: Final = "door.json"
_LOG_FILE: Final = "door.log"
_LOG_BYTES_MAX: Final = 1024 * 1024
_LOOK_S: Final = 2.0
_OPENED_S: Final = 30.0  # from a start to its listening, on a busy machine
_POLL_S: Final = 0.05
_SILENT_S: Final = 30.0  # without a touch of its file: it hangs
_END_S: Final = 5.0
_RETRY_S: Final = 0.2
_RETRY_S_MAX: Final = 5.0
_STABLE_S: Final = 30.0
# What a door needs of our environment: no settings, no keys.
_INHERITED: Final = frozenset({"PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH"})


@dataclass(frozen=True, slots=True)
class NodePapers:
    """Who this node is, and the PEM files that prove it. They are replaced when it is renewed."""

    node_id: NodeId
    certificate_file: Path
    key_file: Path
    ca_file: Path


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A door's process as it is remembered on disk."""

    pid: int
    started_ticks: int
    boot_id: str
    address: str
    release: str


class _Process:
    """A door's process, ours by birth or by adoption. `ended` is set when it is gone."""

    def __init__(self, record: Record, pidfd: int) -> None:
        self.record = record
        self.ended = asyncio.Event()
        self._pidfd = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._on_end)

    def signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def let_go(self) -> None:
        """Touch it no more; it lives on."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_end(self) -> None:
        with contextlib.suppress(ChildProcessError):  # it was adopted: another one's child
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        self.let_go()
        self.ended.set()


class Doors:
    """The door of one agent's state folder. `run` keeps it; then `stop` it or `release` it."""

    def __init__(
        self,
        *,
        folder: Path,
        papers: NodePapers,
        boot_id: str,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        """`folder` is `agent_state/door`. `changed` is called when `port` is another."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder.resolve()
        self._papers = papers
        self._address = ""
        self._address_known = asyncio.Event()
        self._boot_id = boot_id
        self._clock = clock
        self._changed = changed
        self._routes: dict[str, Route] = {}
        self._plan: Plan | None = read_message(self._file(PLAN_FILE), Plan)
        self._process: _Process | None = None
        self._old: set[_Process] = set()  # asked to end, with guests perhaps
        self.port: int | None = None  # where the door listens; None: it does not

    def lead(self, reports: Sequence[ReplicaReport]) -> Sequence[ReplicaReport]:
        """Lead to the engines of these reports, and give them back: now they may be told.

        Before the appliance hears of an engine the door knows the way to it.
        """
        self._routes = {
            replica_name(ReplicaId(report.replica_id), self._papers.node_id): Route(
                host=report.host, port=report.port
            )
            for report in reports
            if report.host is not None and report.port is not None
        }
        if self._plan is not None and self._plan.routes != self._routes:
            try:
                self._write(msgspec.structs.replace(self._plan, routes=self._routes))
            except OSError as error:  # the next report tries again
                log.warning("door cannot be told the way", extra={"why": str(error)})
        return reports

    def speaks_from(self, address: str) -> None:
        """This host's end of the connection to the appliance.

        The appliance comes to where the node speaks from, so that is where the door listens.
        """
        self._address = address
        self._address_known.set()

    async def run(self) -> None:
        """Keep the door open until cancelled."""
        retry_s = _RETRY_S
        while True:
            began_s = self._clock.monotonic_s()
            try:
                await self._keep()
            except OSError as error:
                log.warning("door cannot be started", extra={"why": str(error)})
            if self._clock.monotonic_s() - began_s >= _STABLE_S:
                retry_s = _RETRY_S
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, _RETRY_S_MAX)

    async def stop(self) -> None:
        """End the door, and those from before. The engines behind it are gone already."""
        await self._adopt()
        processes = [*self._old, *([] if self._process is None else [self._process])]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in processes:
                if not process.ended.is_set():
                    process.signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    for process in processes:
                        await process.ended.wait()
        self._file(_RECORD_FILE).unlink(missing_ok=True)
        self._file(OPEN_FILE).unlink(missing_ok=True)
        self._tell(None)

    def release(self) -> None:
        """Let go of the door without touching it: the next agent finds it."""
        for process in [*self._old, *([] if self._process is None else [self._process])]:
            process.let_go()

    # One door, from its start or finding to its end.

    async def _keep(self) -> None:
        process = await self._adopt()
        if process is None:
            await self._address_known.wait()
            process = self._start(self._address)
        if not await self._opens(process):
            process.signal(signal.SIGKILL)
        await self._watch(process)

    async def _opens(self, process: _Process) -> bool:
        """Wait until it listens, and tell where."""
        deadline_s = self._clock.monotonic_s() + _OPENED_S
        while not process.ended.is_set() and self._clock.monotonic_s() < deadline_s:
            opened = read_message(self._file(OPEN_FILE), Opened)
            if opened is not None and opened.pid == process.record.pid:
                self._tell(opened.port)
                return True
            await _wait(process.ended, _POLL_S)
        return False

    async def _watch(self, process: _Process) -> None:
        """Returns when it has ended, or another must take its place."""
        touched: int | None = None
        touched_s = self._clock.monotonic_s()
        while not await _wait(process.ended, _LOOK_S):
            now_s = self._clock.monotonic_s()
            latest = _touched_ns(self._file(OPEN_FILE))
            if latest != touched:
                touched, touched_s = latest, now_s
            elif now_s - touched_s >= _SILENT_S:
                log.warning("door hangs, and is killed", extra={"pid": process.record.pid})
                process.signal(signal.SIGKILL)
            self._bound_log()
            if self._address and self._address != process.record.address:
                log.info("address of this host changed", extra={"pid": process.record.pid})
                self._retire()
                return
        log.warning("door has ended", extra={"pid": process.record.pid})
        self._process = None
        self._tell(None)

    def _start(self, address: str) -> _Process:
        """Raises OSError; then nothing runs."""
        port = PORT if self._plan is None else self._plan.port
        papers = self._papers
        self._write(
            Plan(
                address=address,
                port=port,
                certificate_file=str(papers.certificate_file),
                key_file=str(papers.key_file),
                ca_file=str(papers.ca_file),
                routes=self._routes,
            )
        )
        pid = self._spawn()
        try:
            stat = host.process_stat(pid)
            assert stat is not None  # our child stays, if only as a zombie, until we wait for it
            record = Record(
                pid=pid,
                started_ticks=stat.started_ticks,
                boot_id=self._boot_id,
                address=address,
                release=_release(),
            )
            write_message(self._file(_RECORD_FILE), record, lasting=False)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        log.info("door started", extra={"pid": pid, "address": address})
        self._process = _Process(record, os.pidfd_open(pid))
        return self._process

    def _spawn(self) -> int:
        """A process that leads a session of its own. Raises OSError; then nothing runs."""
        environ = {name: value for name, value in os.environ.items() if name in _INHERITED}
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.posix_spawn(
            sys.executable,
            (sys.executable, "-m", "agent.door", str(self._folder)),
            environ | {OWNER_VARIABLE: str(self._folder)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, str(self._file(_LOG_FILE)), flags, 0o600),
            ],
            setsid=True,
        )

    async def _adopt(self) -> _Process | None:
        """The door that an earlier agent left, if it is one of this release.

        Any other door of this folder is asked to end: one whose record was never written.
        """
        if self._process is None:
            record = read_message(self._file(_RECORD_FILE), Record)
            if record is not None and record.boot_id == self._boot_id:
                self._process = _found(record)
            if self._process is not None:
                log.info("door adopted", extra={"pid": self._process.record.pid})
                if self._process.record.release != _release():
                    self._retire()
        strays = await asyncio.to_thread(self._strays)  # it looks at every process of the account
        known = {process.record.pid for process in (*self._old, self._process) if process}
        for pid in strays:
            if pid not in known:
                log.warning("stray door asked to end", extra={"pid": pid})
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        return self._process

    def _strays(self) -> list[int]:
        ours = str(self._folder)
        return [
            pid
            for pid in host.own_processes()
            if host.process_environ(pid).get(OWNER_VARIABLE) == ours
        ]

    def _retire(self) -> None:
        """Ask the door to end when its guests have left. It is a door no more."""
        process, self._process = self._process, None
        self._file(_RECORD_FILE).unlink(missing_ok=True)
        if process is not None:
            process.signal(signal.SIGTERM)
            self._old = {old for old in self._old if not old.ended.is_set()} | {process}
        self._tell(None)

    def _tell(self, port: int | None) -> None:
        if port is not None and self._plan is not None and self._plan.port != port:
            self._write(msgspec.structs.replace(self._plan, port=port))  # the next one's, too
        if port != self.port:
            self.port = port
            self._changed()

    def _write(self, plan: Plan) -> None:
        write_message(self._file(PLAN_FILE), plan, lasting=False)
        self._plan = plan

    def _bound_log(self) -> None:
        """The door goes on writing into the file, which it opened for appending."""
        path = self._file(_LOG_FILE)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > _LOG_BYTES_MAX:
                os.truncate(path, 0)

    def _file(self, name: str) -> Path:
        return self._folder / name


def _found(record: Record) -> _Process | None:
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return None
    # Looked at after the descriptor was opened: it stands for this very process from now on.
    stat = host.process_stat(record.pid)
    if stat is None or stat.started_ticks != record.started_ticks or stat.state in {"Z", "X"}:
        os.close(pidfd)
        return None
    return _Process(record, pidfd)


def _release() -> str:
    try:
        return importlib.metadata.version("crosslogic-appliance")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _touched_ns(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


async def _wait(event: asyncio.Event, longest_s: float) -> bool:
    """Whether the event came in time."""
    # Not `asyncio.wait_for`: before Python 3.12 it loses a cancellation that meets the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(longest_s):
            await event.wait()
    return event.is_set()
