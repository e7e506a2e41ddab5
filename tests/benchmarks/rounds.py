"""Interleaved rounds of the same work through each proxy, and what they say.

The machine is noisy and so is each figure; a ratio of two figures of one round is much less so.
What is reported is the median of the ratios over the rounds, with their lowest and highest.
"""

import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.proxies import Proxy


@dataclass(frozen=True, slots=True)
class Work:
    """What every connection asks, again and again, and what the CPU time is divided by."""

    name: str
    unit: str  # "request" or "event"
    connections: int
    seconds: float
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One proxy's share of one round."""

    proxy: str
    work: str
    requests: int
    events: int
    seconds: float
    cpu_us: float  # per unit
    memory_mb: float
    latency_p50_ms: float
    latency_p99_ms: float
    first_byte_p50_ms: float
    first_byte_p99_ms: float


def run(load: Path, work: Work, proxy: Proxy, body_file: Path) -> Run:
    """Send the work through the proxy. A failed request would make the figures worthless: exit."""
    body_file.write_text(json.dumps(work.body))
    command = [str(load), str(proxy.port), str(work.connections), str(work.seconds)]
    before_ns = proxy.cpu_ns()
    done = subprocess.run(
        [*command, str(body_file), *proxy.headers], capture_output=True, text=True, check=True
    )
    spent_ns = proxy.cpu_ns() - before_ns
    seen = json.loads(done.stdout)
    if seen["failed"] or not seen["requests"]:
        raise SystemExit(f"{work.name} through {proxy.name}: {done.stdout}")
    units = seen["events"] if work.unit == "event" else seen["requests"]
    return Run(
        proxy=proxy.name,
        work=work.name,
        requests=seen["requests"],
        events=seen["events"],
        seconds=seen["seconds"],
        cpu_us=spent_ns / 1000 / units,
        memory_mb=proxy.memory_bytes() / 2**20,
        latency_p50_ms=seen["latency_p50_ms"],
        latency_p99_ms=seen["latency_p99_ms"],
        first_byte_p50_ms=seen["first_byte_p50_ms"],
        first_byte_p99_ms=seen["first_byte_p99_ms"],
    )


@dataclass(frozen=True, slots=True)
class Line:
    """One proxy on one kind of work: medians over the rounds, and the ratio to the base."""

    proxy: str
    cpu_us: float
    ratio: float
    ratio_low: float
    ratio_high: float
    per_second: float
    latency_p50_ms: float
    latency_p99_ms: float
    memory_mb: float


def ratios(runs: Sequence[Run], work: Work, proxy: str, other: str) -> list[float]:
    """CPU time of one proxy over another's, round by round."""
    own, others = _of(runs, work, proxy), _of(runs, work, other)
    return [mine.cpu_us / theirs.cpu_us for mine, theirs in zip(own, others, strict=True)]


def _of(runs: Sequence[Run], work: Work, proxy: str) -> list[Run]:
    return [one for one in runs if one.work == work.name and one.proxy == proxy]


def lines(runs: Sequence[Run], work: Work, base: str) -> list[Line]:
    """What is to be said of each proxy, in order of cost."""
    found = []
    for proxy in dict.fromkeys(one.proxy for one in runs):
        own, to_base = _of(runs, work, proxy), ratios(runs, work, proxy, base)
        rates = [(one.events or one.requests) / one.seconds for one in own]
        found.append(
            Line(
                proxy=proxy,
                cpu_us=statistics.median(one.cpu_us for one in own),
                ratio=statistics.median(to_base),
                ratio_low=min(to_base),
                ratio_high=max(to_base),
                per_second=statistics.median(rates),
                latency_p50_ms=statistics.median(one.latency_p50_ms for one in own),
                latency_p99_ms=statistics.median(one.latency_p99_ms for one in own),
                memory_mb=max(one.memory_mb for one in own),
            )
        )
    return sorted(found, key=lambda line: line.cpu_us)


def table(work: Work, found: Sequence[Line], base: str) -> str:
    head = f"{work.name}: {work.connections} connections, CPU time per {work.unit}"
    rate = f"{work.unit}s/s"
    rows = [f"  {'':12} {'µs':>7}   × {base:18} {rate:>10} {'p50 ms':>8} {'p99 ms':>8} {'MB':>5}"]
    for line in found:
        ratio = f"{line.ratio:5.2f} ({line.ratio_low:.2f}-{line.ratio_high:.2f})"
        rows.append(
            f"  {line.proxy:12} {line.cpu_us:7.1f}   {ratio:20} {line.per_second:10,.0f}"
            f" {line.latency_p50_ms:8.1f} {line.latency_p99_ms:8.1f} {line.memory_mb:5.0f}"
        )
    return "\n".join([head, *rows])


def as_json(works: Sequence[Work], runs: Sequence[Run], base: str) -> dict[str, Any]:
    return {
        "base": base,
        "work": [
            {**asdict(work), "lines": [asdict(line) for line in lines(runs, work, base)]}
            for work in works
        ],
        "runs": [asdict(one) for one in runs],
    }
