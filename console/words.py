"""Figures and times as a person reads them. What was not measured is a dash, never a zero."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from console.cells import Cell, Tone

MISSING: Final = "–"

_BYTES: Final = ("B", "K", "M", "G", "T", "P")
_COUNTS: Final = ("", "k", "M", "G", "T")

# State of a node, deployment, replica, tenant, key, … -> glyph and tone. The word stands beside it.
_STATES: Final[dict[str, tuple[str, Tone]]] = {
    "ready": ("●", "good"),
    "active": ("●", "good"),
    "ok": ("●", "good"),
    "connected": ("●", "good"),
    "valid": ("●", "good"),
    "accepted": ("●", "good"),
    "done": ("●", "good"),
    "degraded": ("▲", "warn"),
    "warning": ("▲", "warn"),
    "grace": ("▲", "warn"),
    "retiring": ("▲", "warn"),
    "draining": ("◐", "warn"),
    "starting": ("◐", "accent"),
    "loading": ("◐", "accent"),
    "pending": ("◐", "accent"),
    "joining": ("◐", "accent"),
    "running": ("◐", "accent"),
    "slipping": ("✖", "bad"),
    "failed": ("✖", "bad"),
    "error": ("✖", "bad"),
    "fatal": ("✖", "bad"),
    "gone": ("✖", "bad"),
    "unreachable": ("✖", "bad"),
    "frozen": ("✖", "bad"),
    "expired": ("✖", "bad"),
    "revoked": ("✖", "bad"),
}


def count(value: float | None) -> str:
    """1234567 -> "1.23M"; up to five cells."""
    if value is None:
        return MISSING
    if value < 0:
        return f"-{count(-value)}"
    if value < 10 and value != int(value):
        return f"{value:.1f}"
    return _scaled(float(value), 1_000.0, _COUNTS, below=10_000)


def size(value: float | None) -> str:
    """Bytes in powers of 1024: 85899345920 -> "80.0G"; up to five cells."""
    if value is None:
        return MISSING
    return _scaled(float(value), 1_024.0, _BYTES, below=1_000)


def _scaled(value: float, step: float, units: Sequence[str], *, below: int) -> str:
    if round(value) < below:
        return f"{round(value)}{units[0]}"
    for unit in units[1:]:
        value /= step
        if value < 9.995:
            return f"{value:.2f}{unit}"
        if value < 99.95:
            return f"{value:.1f}{unit}"
        if value < 999.5:
            return f"{value:.0f}{unit}"
    return f"{value:.0f}{units[-1]}"


def percent(value: float | None) -> str:
    return MISSING if value is None else f"{value:.0f}%"


def milliseconds(value: float | None) -> str:
    """275 -> "275ms", 12500 -> "12.5s"."""
    if value is None:
        return MISSING
    if value < 1_000:
        return f"{value:.0f}ms"
    if value < 100_000:
        return f"{value / 1_000:.1f}s"
    return duration(value / 1_000)


def duration(seconds: float | None) -> str:
    """The two largest units: 93784 -> "1d 2h"."""
    if seconds is None:
        return MISSING
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        amount, left = divmod(left, length)
        if amount or parts or unit == "s":
            parts.append(f"{amount}{unit}")
        if len(parts) == 2:
            break
    if len(parts) == 2 and parts[1].startswith("0"):
        parts.pop()
    return " ".join(parts)


def moment(text: str | None) -> datetime | None:
    """A time of the wire (ISO 8601, UTC); None when there is none, or it is none."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def ago(text: str | None, now: datetime) -> str:
    """How long since a time of the wire."""
    at = moment(text)
    return MISSING if at is None else duration((now - at).total_seconds())


def until(text: str | None, now: datetime) -> str:
    """How long until a time of the wire; "passed" behind it."""
    at = moment(text)
    if at is None:
        return MISSING
    left = (at - now).total_seconds()
    return duration(left) if left >= 0 else "passed"


def clock_time(text: str | None) -> str:
    """The second of a day, UTC: "19:22:04"."""
    at = moment(text)
    return MISSING if at is None else at.astimezone(UTC).strftime("%H:%M:%S")


def day_time(text: str | None) -> str:
    """Day and minute, UTC: "2026-11-23 19:22"."""
    at = moment(text)
    return MISSING if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def state(word: str | None) -> Cell:
    """A state as glyph and word. A word that is not known here is shown as it came."""
    if not word:
        return Cell(MISSING, "dim")
    glyph, tone = _STATES.get(word, ("○", "dim"))
    return Cell(f"{glyph} {word}", tone)


def glyph(word: str | None) -> Cell:
    """The glyph of a state alone, where its word stands elsewhere."""
    sign, tone = _STATES.get(word or "", ("○", "dim"))
    return Cell(sign, tone)


def or_missing(text: object) -> str:
    return MISSING if text is None or text == "" else str(text)


def plural(number: int, noun: str, many: str = "") -> str:
    """1 replica, 2 replicas."""
    return f"{number} {noun if number == 1 else many or noun + 's'}"
