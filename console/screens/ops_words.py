"""What Ops says of the parts of a site, from what was read of them. Pure."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from appliance.wire.backups import BackupList
from appliance.wire.certificates import SiteCertificate
from appliance.wire.checks import CheckOutcome, CheckResult
from appliance.wire.fleet import Node
from appliance.wire.settings import Setting
from console.cells import Cell, Tone
from console.words import MISSING, ago, count, duration, milliseconds, moment, plural, size

Line = list[Cell]
Figures = Mapping[str, float]

_OUTCOMES: Final[dict[CheckOutcome, tuple[str, Tone]]] = {
    "failed": ("✖ failed", "bad"),
    "warning": ("▲ warning", "warn"),
    "ok": ("● ok", "good"),
    "skipped": ("○ skipped", "dim"),
}
ORDER: Final[tuple[CheckOutcome, ...]] = ("failed", "warning", "ok", "skipped")
_CERTIFICATES: Final[dict[str, tuple[str, Tone]]] = {
    "good": ("● good", "good"),
    "ending": ("▲ ending", "warn"),
    "expired": ("✖ expired", "bad"),
    "revoked": ("✖ revoked", "bad"),
    "replaced": ("○ replaced", "dim"),
    "none": ("○ none", "dim"),
}
_LABEL: Final = 12
_BACKUP_OLD_S: Final = 7 * 86_400


def field(label: str, text: str, width: int, tone: Tone = "plain") -> list[Line]:
    """A label and its text, wrapped beside it; nothing of it is cut."""
    room = max(20, width - _LABEL - 3)
    lines = textwrap.wrap(text, room, break_long_words=True) or [MISSING]
    return [
        [Cell(f" {label if not at else '':<{_LABEL}} ", "dim"), Cell(line, tone)]
        for at, line in enumerate(lines)
    ]


def outcome(word: CheckOutcome) -> Cell:
    return Cell(*_OUTCOMES[word])


def certificate_state(word: str) -> Cell:
    return Cell(*_CERTIFICATES.get(word, (word, "plain")))


def health(
    results: Sequence[CheckResult], began: datetime | None, now: datetime, *, running: bool
) -> tuple[Cell, str]:
    """How it stands, and a sentence."""
    if began is None:
        return Cell("○ not run", "dim"), "Enter runs them: engines, disks, books, clock and more."
    counts = Counter(result.outcome for result in results)
    told = ", ".join(f"{counts[word]} {word}" for word in ORDER if counts[word]) or "nothing yet"
    if running:
        total = results[-1].total if results else 0
        return Cell("◐ running", "accent"), f"{len(results)} of {total or MISSING}: {told}"
    worst: CheckOutcome = next((word for word in ORDER if counts[word]), "skipped")
    return outcome(worst), f"{told}; {duration((now - began).total_seconds())} ago"


def settings(rows: Sequence[Setting]) -> tuple[Cell, str]:
    waiting = [row.name for row in rows if row.pending is not None]
    own = sum(row.source != "default" for row in rows)
    told = f"{own} of {len(rows)} are not defaults"
    if waiting:
        verb = "waits" if len(waiting) == 1 else "wait"
        return Cell("▲ waiting", "warn"), f"{told}; {len(waiting)} {verb} for a start"
    return Cell("● in force", "good"), told


def certificates(rows: Sequence[SiteCertificate]) -> tuple[Cell, str]:
    live = [row for row in rows if row.kind != "endpoint" and row.state not in {"replaced", "none"}]
    bad = [row for row in live if row.state != "good"]
    soonest = min((row.days_left for row in live if row.days_left is not None), default=None)
    told = plural(len(live), "certificate")
    if soonest is not None:
        told += f"; the next ends in {plural(soonest, 'day')}"
    if bad:
        return certificate_state(bad[0].state), f"{told}; {bad[0].name} is {bad[0].state}"
    return Cell("● good", "good"), told


def versions(version: str, nodes: Sequence[Node]) -> tuple[Cell, str]:
    others = [n for n in nodes if n.agent_version is not None and n.agent_version != version]
    if others:
        told = f"{version} here; {plural(len(others), 'agent')} of another version"
        return Cell("▲ mixed", "warn"), told
    if not nodes:
        return Cell("● one", "good"), f"{version} here; no nodes yet"
    return Cell("● one", "good"), f"{version} here and on {plural(len(nodes), 'node')}"


def backups(found: BackupList, now: datetime) -> tuple[Cell, str]:
    """`found` has the newest first."""
    if found.last_error:
        return Cell("✖ failed", "bad"), found.last_error
    if not found.backups:
        return Cell("▲ none", "warn"), f"there is none in {found.folder}"
    newest = found.backups[0]
    told = f"{plural(len(found.backups), 'backup')}, the newest {ago(newest.made_at, now)} old"
    if not found.key_kept and any(each.key_id for each in found.backups):
        return Cell("▲ key", "warn"), f"{told}; its key is nowhere else"
    at = moment(newest.made_at)
    if at is None or (now - at).total_seconds() > _BACKUP_OLD_S:
        return Cell("▲ old", "warn"), told
    return Cell("● made", "good"), told


def parse_figures(text: str) -> dict[str, float]:
    """Prometheus' text: the sum of each name over its labels."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE ") and line.endswith(" counter"):
            found.setdefault(line.split()[2], 0.0)  # of no label yet: nothing was counted
        name, _, value = line.rpartition(" ")
        if line.startswith("#") or not name:
            continue
        try:
            figure = float(value)
        except ValueError:
            continue
        bare = name.partition("{")[0]
        found[bare] = found.get(bare, 0.0) + figure
    return found


def diagnosis(now: Figures) -> tuple[Cell, str]:
    delay = now.get("crosslogic_event_loop_delay_seconds")
    files, most = (now.get(f"crosslogic_process_open_files{end}") for end in ("", "_max"))
    told = f"event loop {_ms(delay)} late at most; {count(files)} of {count(most)} open files"
    slow = delay is not None and delay > 0.5
    full = files is not None and most is not None and files > 0.7 * most
    refused = now.get("crosslogic_ledger_failures_total", 0) > 0
    if refused:
        return Cell("✖ refused", "bad"), f"writes of the ledger were refused; {told}"
    return (Cell("▲ slow", "warn") if slow or full else Cell("● ok", "good")), told


def diagnosis_lines(now: Figures, before: Figures, apart_s: float) -> list[Line]:
    """Figures of the serving process in groups. Rates need two readings."""

    def at(name: str) -> float | None:
        return now.get(f"crosslogic_{name}")

    def rate(name: str) -> float | None:
        new, old = at(name), before.get(f"crosslogic_{name}")
        return None if new is None or old is None or apart_s <= 0 else (new - old) / apart_s

    cpu, commits, spent = rate("process_cpu_seconds_total"), rate(_COMMITS), rate(_SPENT)
    mean_s = spent / commits if commits and spent is not None else None
    whole, whole_s = at(_COMMITS), at(_SPENT)
    ever_s = whole_s / whole if whole and whole_s is not None else None
    return [
        _group("Process"),
        _row("processor", f"{cpu * 100:.1f}% of a core" if cpu is not None else MISSING),
        _row("memory", size(at("process_resident_bytes"))),
        _row("threads", count(at("process_threads"))),
        _row(
            "open files",
            f"{count(at('process_open_files'))} of {count(at('process_open_files_max'))}",
        ),
        _row("event loop", f"{_ms(at('event_loop_delay_seconds'))} late at most in a minute"),
        _group("Ledger"),
        _row("records", f"{count(at('ledger_records'))}, {count(at('ledger_open'))} open"),
        _row(
            "commits", f"{_per_s(commits)}, {_ms(mean_s)} each now, {_ms(ever_s)} since the start"
        ),
        _row("refused", count(at("ledger_failures_total"))),
        _group("Requests"),
        _row(
            "at work",
            f"{count(at('requests_running'))} running, {count(at('requests_queued'))} queued,"
            f" {count(at('streams_open'))} streams",
        ),
        _row("ended", f"{_per_s(rate('requests_total'))}, {count(at('requests_total'))} in all"),
        _row(
            "refused",
            f"{_per_s(rate('refusals_total'))}, {count(at('refusals_total'))} in all",
        ),
        _row(
            "connections",
            f"{count(at('connections_open'))} open,"
            f" {count(at('connections_refused_total'))} refused",
        ),
        _row("retries", f"{count(at('retries_total'))} on another replica"),
    ]


_COMMITS: Final = "ledger_commit_seconds_count"
_SPENT: Final = "ledger_commit_seconds_sum"


def _group(title: str) -> Line:
    return [Cell(f" {title}", "title")]


def _row(label: str, text: str) -> Line:
    return [Cell(f"   {label:<{_LABEL}} ", "dim"), Cell(text)]


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    return f"{seconds * 1_000:.1f}ms" if seconds < 0.01 else milliseconds(seconds * 1_000)


def _per_s(rate: float | None) -> str:
    return f"{MISSING if rate is None else count(max(0.0, rate))}/s"
