"""Engine processes: started, recorded, found again, ended. The thin shell around the kernel.

- Each engine leads a session and process group of its own. It outlives the agent.
- A process is recorded by pid, start time and boot id before anything is asked of it, so that the
  next agent finds it and no other one. Between a spawn and its record nothing can be lost either:
  the environment of every engine names the folder it belongs to.
- Output goes to files, never to pipes: a pipe would break when the agent dies.
- All of an engine ends with its leader: its process group, whatever else carries its launch's mark,
  and the shared memory that they were seen to hold.
"""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from agent import host, shared_memory
from agent.durable import read_message, write_message
from appliance.wire.agent import DesiredReplica
from appliance.wire.engine_traces import Dump

log = logging.getLogger(__name__)

OWNER_VARIABLE: Final = "CROSSLOGIC_ENGINE_OWNER"
LAUNCH_VARIABLE: Final = "CROSSLOGIC_ENGINE_LAUNCH"
LOG_BYTES_MAX: Final = 4 * 1024 * 1024
_TAIL_BYTES: Final = 64 * 1024
_LAUNCH_LINE: Final = "crosslogic: launch "  # begins each run in an engine's log
# setproctitle, which vLLM uses, overwrites a process's environment in /proc unless it is told not
# to: the mark by which orphans are found would be gone.
_KEEP_ENVIRON: Final = {"SPT_NOENV": "1"}
_KEPT_S: Final = 7 * 86_400  # what a replica wrote, after its end
_READY_BYTES_MAX: Final = 4 * 1024
# What an engine needs of our environment. Settings, keys and tokens are not for it.
_INHERITED: Final = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH"}
    | {"VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_HOME"}
)


@dataclass(frozen=True, slots=True)
class Command:
    """What is run: no shell, no secret among the arguments."""

    arguments: tuple[str, ...]
    environ: Mapping[str, str] = field(repr=False)


class Fitness(msgspec.Struct, frozen=True, kw_only=True):
    """What a process that became ready told: as good after a restart of the agent."""

    host: str
    port: int
    slots: int | None
    context_tokens: int | None
    tokens_per_s: float | None
    prompt_tokens_per_byte: float | None
    prefill_tokens_per_s: float | None = None
    gpu_memory_bytes: int | None = None
    loaded_s: float | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A process as it is remembered on disk. The engine's key is not: its environment has it."""

    replica: DesiredReplica
    launch_id: str
    pid: int
    started_ticks: int
    boot_id: str
    started_ns: int
    restarts: int
    fitness: Fitness | None = None  # None: it was never ready
    command: tuple[str, ...] = ()
    shared: tuple[shared_memory.Segment, ...] = ()  # seen in its hands


class Process:
    """One engine process, ours by birth or by adoption. `pidfd` is readable when it has ended."""

    __slots__ = ("_child", "pidfd", "record")

    def __init__(self, record: Record, pidfd: int, child: "subprocess.Popen[bytes] | None") -> None:
        self.record = record
        self.pidfd = pidfd
        self._child = child

    @property
    def pid(self) -> int:
        return self.record.pid

    def end(self, *, kill: bool) -> None:
        """Ask the whole group to end, or end it; nothing happens when it is gone."""
        if not self.alive():
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL if kill else signal.SIGTERM)

    def alive(self) -> bool:
        stat = host.process_stat(self.pid)
        if stat is None or stat.started_ticks != self.record.started_ticks:
            return False
        return stat.state not in {"Z", "X"}

    def family(self) -> list[int]:
        """Its leader and those that descend from it."""
        return [self.pid, *host.descendants(self.pid)]

    def work(self) -> tuple[int, int]:
        """Ticks on a core, and ticks of waiting for one, of all its processes."""
        family = self.family()
        stats = (host.process_stat(pid) for pid in family)
        used = sum(stat.cpu_ticks for stat in stats if stat is not None)
        return used, sum(host.waited_ticks(pid) for pid in family)

    def exit_code(self) -> int | None:
        """After its end: negative for a signal; None: not our child, so nobody told us."""
        return None if self._child is None else self._child.wait()

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class Processes:
    """The engines of one agent's state folder."""

    def __init__(self, folder: Path, boot_id: str) -> None:
        """`folder` is `agent_state/engines`; it is made when it is not there."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder.resolve()
        self._boot_id = boot_id

    def spawn(self, replica: DesiredReplica, command: Command, restarts: int) -> Process:
        """Start and record an engine. Raises OSError; then nothing runs."""
        launch_id = secrets.token_hex(8)
        environ = {name: value for name, value in os.environ.items() if name in _INHERITED}
        environ |= command.environ
        environ |= {OWNER_VARIABLE: str(self._folder), LAUNCH_VARIABLE: launch_id}
        environ |= _KEEP_ENVIRON
        self._file(replica.replica_id, "out").unlink(missing_ok=True)
        with (
            _appending(self._file(replica.replica_id, "out")) as out,
            _appending(self.log_file(replica.replica_id)) as errors,
        ):
            started_ns = time.time_ns()
            errors.write(f"{_LAUNCH_LINE}{launch_id}\n".encode())
            errors.flush()
            child = subprocess.Popen(
                command.arguments,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out.fileno(),
                stderr=errors.fileno(),
                start_new_session=True,
            )
        try:
            pidfd = os.pidfd_open(child.pid)
            stat = host.process_stat(child.pid)
            assert stat is not None  # our child stays, if only as a zombie, until we wait for it
            record = Record(
                replica=replica,
                launch_id=launch_id,
                pid=child.pid,
                started_ticks=stat.started_ticks,
                boot_id=self._boot_id,
                started_ns=started_ns,
                restarts=restarts,
                command=tuple(command.arguments),
            )
            write_message(self._file(replica.replica_id, "json"), record)
        except BaseException:
            child.kill()
            child.wait()
            raise
        return Process(record, pidfd, child)

    def adopt(self) -> list[Process]:
        """The recorded engines that still run; whatever else belongs to this folder is killed."""
        adopted = []
        for path in sorted(self._folder.glob("*.json")):
            record = read_message(path, Record)
            process = None if record is None else self._find(record)
            if process is not None:
                adopted.append(process)
                continue
            if record is not None and record.boot_id == self._boot_id:
                self._clean(record)
            path.unlink(missing_ok=True)
        kept = {process.record.launch_id for process in adopted}
        for pid in host.own_processes():
            environ = host.process_environ(pid)
            if environ.get(OWNER_VARIABLE) != str(self._folder):
                continue
            if environ.get(LAUNCH_VARIABLE) not in kept:
                log.warning("stray engine process killed", extra={"pid": pid})
                _kill(pid)
        return adopted

    def note(self, process: Process, fitness: Fitness) -> None:
        """Remember that the process is ready, and what it is worth."""
        process.record = msgspec.structs.replace(process.record, fitness=fitness)
        self._write(process)

    def note_shared(self, process: Process) -> None:
        """Remember which shared memory its processes hold: afterwards nobody could tell."""
        segments = {*process.record.shared, *shared_memory.held(process.family())}
        if segments != set(process.record.shared):
            shared = tuple(sorted(segments))
            process.record = msgspec.structs.replace(process.record, shared=shared)
            self._write(process)

    def forget(self, process: Process) -> None:
        """Its leader has ended: end what it left behind, and the record."""
        process.close()
        self._clean(process.record)
        self._file(process.record.replica.replica_id, "json").unlink(missing_ok=True)

    def keep_dump(self, dump: Dump) -> None:
        """The latest of each replica is kept."""
        write_message(self._file(dump.replica_id, "dump"), dump)

    def last_dump(self, replica_id: str) -> Dump | None:
        return read_message(self._file(replica_id, "dump"), Dump)

    def ready_line(self, replica_id: str) -> bytes | None:
        """The first line of standard output, once it is whole."""
        try:
            with self._file(replica_id, "out").open("rb") as file:
                line = file.readline(_READY_BYTES_MAX)
        except FileNotFoundError:
            return None
        return line if line.endswith(b"\n") else None

    def log_tail(self, replica_id: str) -> Sequence[str]:
        """The last lines that the latest run of the engine wrote."""
        try:
            with self.log_file(replica_id).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ()
        for number in range(len(lines) - 1, -1, -1):
            if lines[number].startswith(_LAUNCH_LINE):
                return lines[number + 1 :]
        return lines

    def bound_log(self, replica_id: str) -> None:
        """Begin an engine's log anew when it is too long; the one before is kept.

        The engine goes on writing into the same file: it was opened for appending, so its next
        line is the first of the emptied file. Lines written meanwhile are lost.
        """
        path = self.log_file(replica_id)
        try:
            if path.stat().st_size <= LOG_BYTES_MAX:
                return
        except FileNotFoundError:
            return
        kept = path.with_suffix(".log.1")
        try:
            with path.open("rb") as file:
                file.seek(-LOG_BYTES_MAX // 2, os.SEEK_END)
                kept.write_bytes(file.read(LOG_BYTES_MAX))
        except OSError as error:  # a full disk: room is worth more than the older lines
            log.warning("older lines of an engine's log are lost", extra={"why": str(error)})
            with contextlib.suppress(OSError):
                kept.unlink(missing_ok=True)
        os.truncate(path, 0)

    def sweep(self, kept: Collection[str], now_s: float) -> None:
        """Remove what replicas that are gone left behind: logs, dumps, folders, a week later."""
        for path in list(self._folder.iterdir()):
            replica_id = path.name.partition(".")[0]
            if "." not in path.name or replica_id in kept:
                continue
            with contextlib.suppress(OSError):  # another time
                if now_s - path.stat().st_mtime < _KEPT_S:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def room(self, replica_id: str) -> tuple[Path, Path]:
        """A replica's own folder and the one all share; both need not exist."""
        return self._file(replica_id, "files"), self._folder / "cache"

    def log_file(self, replica_id: str) -> Path:
        return self._file(replica_id, "log")

    def _file(self, replica_id: str, suffix: str) -> Path:
        return self._folder / f"{replica_id}.{suffix}"

    def _write(self, process: Process) -> None:
        """On a full disk the record stays as it was: the engine can be found by it all the same."""
        replica_id = process.record.replica.replica_id
        try:
            write_message(self._file(replica_id, "json"), process.record)
        except OSError as error:
            log.warning(
                "engine's record not written",
                extra={"replica_id": replica_id, "why": error.strerror},
            )

    def _clean(self, record: Record) -> None:
        """End whatever of an engine is left after its leader, and take its shared memory away."""
        left = [pid for pid in host.own_processes() if _belongs(pid, record)]
        segments = {*record.shared, *shared_memory.held(left)}
        for pid in left:
            _kill(pid)
        removed = shared_memory.remove(segments, leaving=left)
        if left or removed:
            log.info(
                "engine's remains cleaned",
                extra={
                    "replica_id": record.replica.replica_id,
                    "processes": len(left),
                    "shared_memory": len(removed),
                },
            )

    def _find(self, record: Record) -> Process | None:
        if record.boot_id != self._boot_id:
            return None
        try:
            pidfd = os.pidfd_open(record.pid)
        except ProcessLookupError:
            return None
        process = Process(record, pidfd, None)
        # Looked at after the descriptor was opened: it stands for this very process from now on.
        if not process.alive():
            process.close()
            return None
        return process


def _appending(path: Path) -> BinaryIO:
    """Open for appending, readable by this account alone."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "ab")


def _belongs(pid: int, record: Record) -> bool:
    """Whether a process is of this launch: in its group, or with its mark.

    A process that has the leader's own pid is a stranger: the leader is gone.
    """
    if pid == record.pid:
        return False
    stat = host.process_stat(pid)
    if stat is None or stat.state in {"Z", "X"}:
        return False
    if host.process_environ(pid).get(LAUNCH_VARIABLE) == record.launch_id:
        return True
    return stat.group == record.pid and stat.started_ticks >= record.started_ticks


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
