"""What the kernel says of this machine's memory, processor, network and disk. Blocks: for threads.

Counters only ever grow, so a figure of the last minute is what they grew by since a minute ago.
"""

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SPAN_S: Final = 60.0
_ERRORS: Final = ("rx_errors", "tx_errors", "rx_dropped", "tx_dropped")
_PACKETS: Final = ("rx_packets", "tx_packets")


@dataclass(frozen=True, slots=True)
class Port:
    """A network interface with hardware behind it. None: it does not tell."""

    name: str
    up: bool
    mbit_per_s: int | None = None
    mbit_per_s_best: int | None = None  # that it was seen to have
    errors: int = 0  # of the last minute, dropped packets included
    packets: int = 0


@dataclass(frozen=True, slots=True)
class HostFigures:
    """One reading. None: the kernel does not tell."""

    cores: int = 1
    load: float | None = None  # of the last 15 minutes
    cpu_waits: float | None = None  # percent of 5 min in which something waited for a core
    memory_stalls: float | None = None  # percent of a minute in which nothing got on for want of it
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    swapped_pages: int = 0  # of the last minute, in and out
    throttled_ms: int = 0  # of the last minute: the processor held back against the heat
    ports: tuple[Port, ...] = ()  # that were up once since the agent started
    disk_total_bytes: int | None = None  # where the node's folder is
    disk_free_bytes: int | None = None


@dataclass(slots=True)
class _Counters:
    at_s: float
    values: dict[str, int] = field(default_factory=dict)


class HostReader:
    """Reads under `root`; `home` is the folder whose disk matters."""

    __slots__ = ("_best", "_cores", "_home", "_past", "_root")

    def __init__(self, home: Path, cores: int, root: Path = Path("/")) -> None:
        self._home = home
        self._cores = cores
        self._root = root
        self._best: dict[str, int | None] = {}  # by interface that was up: its best speed
        self._past: deque[_Counters] = deque()

    def read(self, now_s: float) -> HostFigures:
        """Raises OSError when the disk of the node's folder does not tell."""
        memory = dict(_pairs(self._text("proc/meminfo").replace(":", "")))
        counters = dict(self._counters())
        grown = self._grown(counters, now_s)
        disk = os.statvfs(self._home)
        return HostFigures(
            cores=self._cores,
            load=_float(self._text("proc/loadavg").split(), 2),
            cpu_waits=self._pressure("cpu", "some", "avg300"),
            memory_stalls=self._pressure("memory", "full", "avg60"),
            memory_total_bytes=_kib(memory.get("MemTotal")),
            memory_available_bytes=_kib(memory.get("MemAvailable")),
            swapped_pages=grown.get("pswpin", 0) + grown.get("pswpout", 0),
            throttled_ms=grown.get("throttled_ms", 0),
            ports=tuple(self._ports(grown)),
            disk_total_bytes=disk.f_blocks * disk.f_frsize,
            disk_free_bytes=disk.f_bavail * disk.f_frsize,
        )

    def _counters(self) -> Iterator[tuple[str, int]]:
        for name, value in _pairs(self._text("proc/vmstat")):
            if name in {"pswpin", "pswpout"}:
                yield name, value
        throttled = self._root.glob(
            "sys/devices/system/cpu/cpu*/thermal_throttle/package_throttle_total_time_ms"
        )
        # Every core of a package tells the same figure.
        yield "throttled_ms", max((_int(_read(path)) or 0 for path in throttled), default=0)
        for folder in self._interfaces():
            for name in (*_ERRORS, *_PACKETS):
                yield f"{folder.name}/{name}", _int(_read(folder / "statistics" / name)) or 0

    def _grown(self, values: dict[str, int], now_s: float) -> dict[str, int]:
        """By how much, over the last minute. A counter that began anew counts from there."""
        self._past.append(_Counters(now_s, values))
        while len(self._past) > 1 and now_s - self._past[1].at_s >= SPAN_S:
            self._past.popleft()
        before = self._past[0].values
        return {name: max(0, value - before.get(name, value)) for name, value in values.items()}

    def _interfaces(self) -> list[Path]:
        """Those of hardware; bridges, tunnels and containers come and go as they please."""
        folder = self._root / "sys/class/net"
        with contextlib.suppress(OSError):
            return sorted(path for path in folder.iterdir() if (path / "device").exists())
        return []

    def _ports(self, grown: dict[str, int]) -> Iterator[Port]:
        there = {folder.name: folder for folder in self._interfaces()}
        for name, folder in there.items():
            if _read(folder / "carrier").strip() == "1":
                speed = _int(_read(folder / "speed"))
                self._best[name] = max(self._best.get(name) or 0, speed or 0) or None
        for name, best in self._best.items():
            # One that was taken out is a link that is down.
            folder = there.get(name, self._root / "sys/class/net" / name)
            up = _read(folder / "carrier").strip() == "1"
            speed = _int(_read(folder / "speed")) if up else None
            yield Port(
                name,
                up=up,
                mbit_per_s=speed if speed and speed > 0 else None,
                mbit_per_s_best=best,
                errors=sum(grown.get(f"{name}/{kind}", 0) for kind in _ERRORS),
                packets=sum(grown.get(f"{name}/{kind}", 0) for kind in _PACKETS),
            )

    def _pressure(self, of: str, line: str, name: str) -> float | None:
        """Percent of the time, from the kernel's pressure stall information."""
        for text in self._text(f"proc/pressure/{of}").splitlines():
            words = text.split()
            if words and words[0] == line:
                pairs = dict(word.split("=", 1) for word in words[1:] if "=" in word)
                return _float([pairs.get(name, "")], 0)
        return None

    def _text(self, name: str) -> str:
        return _read(self._root / name)


def _read(path: Path) -> str:
    """ "" where there is no such file, or it tells nothing: a link that is down has no speed."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _pairs(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[1].isdecimal():
            yield words[0], int(words[1])


def _int(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _float(words: list[str], index: int) -> float | None:
    try:
        return float(words[index])
    except (ValueError, IndexError):
        return None


def _kib(value: int | None) -> int | None:
    return None if value is None else value * 1024
