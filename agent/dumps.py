"""What an engine that hangs looked like before it was killed: its processes, as the kernel sees.

Read from the parts of /proc that never wait for the process: no command line, environment or map,
whose reading takes a lock that a stuck process may hold. Nothing of a request is in it: the log's
tail is without the lines that may quote one.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from agent.host import PROC
from appliance.wire.engine_traces import LOG_LINES_MAX, Dump, ProcessDump, ThreadDump

_LINE_CHARS_MAX: Final = 400
_PROCESSES_MAX: Final = 32
_THREADS_MAX: Final = 64
_STACK_CHARS_MAX: Final = 2_000
# Engines quote requests when they are told to log them, and in errors about their content.
_QUOTES: Final = re.compile(
    r"\bprompt\s*[:=]|\bmessages\s*[:=]|\bcontent\s*[\"']?\s*[:=]|prompt_token_ids|\binput\s*[:=]"
    r"|generated text|\bmultimodal|Received request",
    re.IGNORECASE,
)
_SECRETS: Final = re.compile(r"(?i)(bearer\s+|api[-_ ]?key\W{1,3})\S+")


def take(
    replica_id: str,
    pid: int,
    members: Iterable[int],
    reason: str,
    log_tail: Sequence[str],
    at_ns: int,
) -> Dump:
    """Look at all processes of an engine, without waiting for any of them."""
    chosen = sorted(set(members) | {pid})[:_PROCESSES_MAX]
    return Dump(
        replica_id=replica_id,
        pid=pid,
        at_ns=at_ns,
        reason=reason,
        processes=tuple(found for one in chosen if (found := _process(one)) is not None),
        log=harmless(log_tail),
    )


def harmless(lines: Sequence[str]) -> tuple[str, ...]:
    """The last lines of a log without what may quote a request or a key."""
    kept = (line for line in lines if not _QUOTES.search(line))
    cut = [_SECRETS.sub(r"\1[removed]", line)[:_LINE_CHARS_MAX] for line in kept]
    return tuple(cut[-LOG_LINES_MAX:])


def _process(pid: int) -> ProcessDump | None:
    folder = PROC / str(pid)
    try:
        tids = sorted(int(entry.name) for entry in (folder / "task").iterdir())
    except OSError:
        return None
    threads = (_thread(folder / "task" / str(tid), tid) for tid in tids[:_THREADS_MAX])
    return ProcessDump(
        pid=pid,
        name=_read(folder / "comm"),
        memory_bytes=_resident(folder),
        thread_count=len(tids),
        threads=tuple(thread for thread in threads if thread is not None),
    )


def _thread(folder: Path, tid: int) -> ThreadDump | None:
    state = _read(folder / "stat").rpartition(")")[2].split()
    if not state:
        return None
    return ThreadDump(
        tid=tid,
        name=_read(folder / "comm"),
        state=state[0],
        waits_in=_read(folder / "wchan"),
        stack=_read(folder / "stack")[:_STACK_CHARS_MAX],
    )


def _resident(folder: Path) -> int | None:
    for line in _read(folder / "status").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return None


def _read(path: Path) -> str:
    """Its text; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
