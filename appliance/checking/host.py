"""The host: memory, open files, the clock, the event loop, who may read the home's files."""

import asyncio
import ctypes
import os
import resource
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from appliance.admin.observed import HostNow
from appliance.checking.findings import Check, Finding, aside, good, size, span
from appliance.wire.home import Home

_MEMORY_FAILED: Final = 0.03
_MEMORY_WARNING: Final = 0.10
_FILES_WARNING: Final = 0.70
_FILES_FAILED: Final = 0.90
_FILES_MIN: Final = 8_192
_LOOP_TURNS: Final = 40
_LOOP_SLEEP_S: Final = 0.005
_LOOP_SLOW_S: Final = 0.05
_LOOP_VERY_SLOW_S: Final = 0.5
# adjtimex(2): what it returns while no program keeps the clock right, and how far off it may be.
_TIME_ERROR: Final = 5
_CLOCK_WARNING_S: Final = 1.0
_TIMEX_BYTES: Final = 512  # more than any struct timex
_MAXERROR_AT: Final = 24  # modes, padding, offset, freq, then maxerror in µs (64 bit)


def host_checks(home: Home) -> list[Check]:
    """What holds whether the site runs or not."""

    async def memory() -> Sequence[Finding]:
        return await aside(lambda: [memory_found(meminfo(Path("/proc/meminfo").read_text()))])

    async def clock() -> Sequence[Finding]:
        return [clock_found(*kept_time())]

    async def modes() -> Sequence[Finding]:
        return await aside(lambda: mode_findings(home))

    return [
        Check("host.memory", "Without memory the system ends engines, or this appliance.", memory),
        Check(
            "host.clock",
            "Records, leases and certificates carry the host's time.",
            clock,
        ),
        Check("home.modes", "Who can read the secrets can be the site.", modes),
    ]


def process_checks() -> list[Check]:
    """Of the serving process itself."""

    async def files() -> Sequence[Finding]:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return [files_found(len(os.listdir("/proc/self/fd")), soft)]  # noqa: PTH208 (names alone)

    async def loop() -> Sequence[Finding]:
        return [loop_found(await turns_s())]

    return [
        Check("process.open-files", "Each connection, and each file, takes one.", files),
        Check("process.event-loop", "Every token passes through the event loop.", loop),
    ]


def meminfo(text: str) -> Mapping[str, int]:
    """`/proc/meminfo` in bytes (proc(5))."""
    figures = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            figures[name] = int(words[0]) * (1_024 if words[1:] == ["kB"] else 1)
    return figures


def memory_found(figures: Mapping[str, int]) -> Finding:
    whole, free = figures.get("MemTotal", 0), figures.get("MemAvailable", 0)
    if not whole:
        return Finding("skipped", "The system does not tell its memory.")
    swap = figures.get("SwapTotal", 0) - figures.get("SwapFree", 0)
    seen = f"{size(free)} of {size(whole)} available; {size(swap)} swapped out."
    fix = "See what takes it (`ps aux --sort -rss | head`); fewer engines here, or more memory."
    if free / whole < _MEMORY_FAILED:
        return Finding("failed", seen, fix)
    if free / whole < _MEMORY_WARNING:
        return Finding("warning", seen, fix)
    return good(seen)


def files_found(used: int, most: int) -> Finding:
    seen = f"{used:,} of {most:,} open files are in use."
    fix = "Raise the limit: LimitNOFILE= of the service, or `ulimit -n`, and start again."
    if used / most > _FILES_FAILED:
        return Finding("failed", seen, fix)
    if used / most > _FILES_WARNING or most < _FILES_MIN:
        return Finding("warning", seen, fix)
    return good(seen)


def kept_time() -> tuple[int, float]:
    """What adjtimex(2) returns, and the most that the clock is off, in seconds. -1: not to be had.

    A read alone: `modes` stays 0.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "adjtimex", None)
    if call is None:
        return -1, 0.0
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = call(buffer)
    return state, ctypes.c_long.from_buffer(buffer, _MAXERROR_AT).value / 1e6


def host_now() -> HostNow:
    """Memory and clock of this host, for the alerts."""
    try:
        figures = meminfo(Path("/proc/meminfo").read_text())
    except OSError:
        figures = {}
    state, off_s = kept_time()
    return HostNow(
        memory_free_bytes=figures.get("MemAvailable"),
        memory_total_bytes=figures.get("MemTotal"),
        clock_kept=None if state < 0 else state != _TIME_ERROR,
        clock_off_s=None if state < 0 else off_s,
    )


def clock_found(state: int, off_s: float) -> Finding:
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    fix = "Let chrony, ntpd or systemd-timesyncd keep it, from a time server of the site."
    if state < 0:
        return Finding("skipped", f"It is {now} UTC; the system does not tell who keeps the clock.")
    if state == _TIME_ERROR:
        return Finding("warning", f"It is {now} UTC; nothing keeps this clock right.", fix)
    seen = f"It is {now} UTC; kept, off by {span(off_s)} at most."
    return Finding("warning", seen, fix) if off_s > _CLOCK_WARNING_S else good(seen)


async def turns_s() -> list[float]:
    """How much later than asked the event loop came back, a few times."""
    late = []
    for _ in range(_LOOP_TURNS):
        began_s = time.perf_counter()
        await asyncio.sleep(_LOOP_SLEEP_S)
        late.append(max(0.0, time.perf_counter() - began_s - _LOOP_SLEEP_S))
    return late


def loop_found(late_s: Sequence[float]) -> Finding:
    mean_s, worst_s = sum(late_s) / len(late_s), max(late_s)
    seen = f"A turn comes {span(mean_s)} late; the latest of {len(late_s)} was {span(worst_s)}."
    fix = "Fewer engines or other programs on this host: the appliance needs a core of its own."
    if mean_s > _LOOP_VERY_SLOW_S:
        return Finding("failed", seen, fix)
    if mean_s > _LOOP_SLOW_S or worst_s > _LOOP_VERY_SLOW_S:
        return Finding("warning", seen, fix)
    return good(seen)


def mode_findings(home: Home) -> list[Finding]:
    """Files of the home that more accounts can read, or change, than should."""
    found: list[Finding] = []
    looked = 0
    for path, forbidden in (
        *((p, 0o077) for p in (home.secrets, *_inside(home.secrets))),
        (home.registry_file, 0o077),
        (home.ledger_file, 0o077),
        (home.admin_socket, 0o007),
        (home.config_file, 0o022),
        (home.config, 0o002),
        (home.state, 0o002),
        (home.run, 0o002),
    ):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        looked += 1
        found += _exposed(path, status, forbidden)
    return found or [good(f"{looked} files and folders are open to whom they should be alone.")]


def _inside(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []


def _exposed(path: Path, status: os.stat_result, forbidden: int) -> list[Finding]:
    mode = stat.S_IMODE(status.st_mode)
    secret = forbidden == 0o077
    if status.st_uid not in {0, os.geteuid()} and secret:
        return [
            Finding(
                "failed",
                f"It belongs to another account (uid {status.st_uid}).",
                f"chown {os.geteuid()} {path}",
                str(path),
            )
        ]
    if not mode & forbidden:
        return []
    return [
        Finding(
            "failed" if secret else "warning",
            f"Its mode is {mode:04o}: other accounts can {'read' if secret else 'change'} it.",
            f"chmod {mode & ~forbidden:o} {path}",
            str(path),
        )
    ]
