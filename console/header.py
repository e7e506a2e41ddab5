"""The words of the frame's first line. Pure."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.cells import cell_len

from console.actions import Action
from console.cells import Cell, Row, Tone
from console.modes import MODES
from console.store import Store
from console.words import ago, duration, plural

# Nothing heard for so many intervals, and at least so long: what is shown is old.
_STALE_INTERVALS: Final = 2.5
_STALE_S: Final = 3.0
_NAME_CELLS_MAX: Final = 24
_COLOUR: Final = re.compile("#[0-9a-f]{6}")


def stale_s(age_s: float | None, every_s: float) -> float | None:
    """How old the figures are, when they are too old to be called live."""
    if age_s is None or age_s < max(_STALE_S, _STALE_INTERVALS * every_s):
        return None
    return age_s


def header(store: Store, now: datetime, room: int) -> list[Cell]:
    """Site, version, time, cloud, what is not synced, alerts: what fits into so many cells.

    Where it is too narrow the version goes first, then the time, a partner's name of the product,
    the cloud. Alerts stay.
    """
    site = store.site
    if site is None:
        return [Cell(" CrossLogic", "title"), Cell("  waiting for the appliance…", "dim")]
    sync = store.row("sync", "sync")
    called = str(site.get("name", ""))
    if cell_len(called) > _NAME_CELLS_MAX:
        called = f"{called[: _NAME_CELLS_MAX - 1]}…"
    name = [Cell(f" {called}", "title")]
    accent = str(site.get("accent") or "")
    if not _COLOUR.fullmatch(accent):
        accent = ""  # of an appliance that has others than this console knows
    product = [Cell(f" {site['product']}", "title", accent)] if site.get("product") else []
    version = [Cell(f" v{site.get('version', '')}")]
    time = [Cell(f" {now.astimezone(UTC):%H:%M}Z")]
    cloud = [] if sync is None else _cloud(sync, now)
    unsynced = [] if sync is None else _unsynced(sync)
    alerts = _alerts(store.table("alerts").values())
    parts = [product, name, version, time, cloud, unsynced, alerts]
    for goes in ((), (2,), (2, 3), (0, 2, 3), (0, 2, 3, 4)):
        cells = [cell for at, part in enumerate(parts) if at not in goes for cell in part]
        if width_of(cells) <= room:
            break
    return cells


def _cloud(sync: Row, now: datetime) -> list[Cell]:
    word, tone = str(sync.get("state", "")), _CLOUD_TONES.get(str(sync.get("state", "")), "warn")
    since = ""
    if word in ("offline", "frozen") and sync.get("last_contact"):
        since = " " + ago(sync["last_contact"], now)
    return [
        Cell("  cloud "),
        Cell((word.upper() if word in ("offline", "frozen") else word) + since, tone),
    ]


def _unsynced(sync: Row) -> list[Cell]:
    lag = sync.get("lag_manifests")
    tone: Tone = "plain" if sync.get("state") == "connected" else "warn"
    return [Cell(f"  unsynced {lag}", tone)] if lag else []


_CLOUD_TONES: Final[dict[str, Tone]] = {
    "connected": "good",
    "offline": "warn",
    "frozen": "bad",
    "never enrolled": "dim",
}


def _alerts(alerts: Iterable[Row]) -> list[Cell]:
    open_alerts = [row for row in alerts if not row.get("acknowledged_at")]
    if not open_alerts:
        return []
    worst = any(row.get("severity") in ("error", "fatal") for row in open_alerts)
    return [Cell(f"  ALERTS {len(open_alerts)}", "bad" if worst else "warn")]


def standing(age_s: float | None, every_s: float, trouble: str, *, paused: bool) -> Cell:
    """The footer's last word: whether what is shown is now."""
    if paused:
        return Cell(" PAUSED ", "warn")
    stale = stale_s(age_s, every_s)
    if stale is not None:
        return Cell(f" STALE {duration(stale)} ", "bad")
    if trouble and age_s is None:
        return Cell(f" {trouble} ", "bad")
    if age_s is None:
        return Cell(" connecting… ", "accent")
    return Cell(f" live {every_s:g}s ", "good")


def account(actor: str, role: str, *, read_only: bool) -> list[Cell]:
    """Who sits here: `0:root` is what the audit has; the name is enough for a person."""
    name = actor.partition(":")[2] or actor
    return [Cell(f"  {name} "), Cell(f"{'read-only' if read_only else role} ", "accent")]


def width_of(cells: Iterable[Cell]) -> int:
    return sum(cell_len(cell.text) for cell in cells)


def running(tasks: int) -> list[Cell]:
    return [Cell(f" {plural(tasks, 'task')} at work ", "accent")] if tasks else []


def mode_bar(active: str, titles: Sequence[str], width: int) -> list[Cell]:
    """The eight modes, the active one in brackets; behind them how deep one is in it.

    Where that is too wide the other modes are their digits alone.
    """
    crumbs = "  " + " › ".join(titles) if titles else ""
    names = [mode.title for mode in MODES]
    if crumbs and sum(len(name) + 4 for name in names) + cell_len(crumbs) > width:
        names = [mode.title if mode.digit == active else "" for mode in MODES]
    cells: list[Cell] = []
    for mode, name in zip(MODES, names, strict=True):
        if mode.digit == active:
            cells.append(Cell(f"[{mode.digit} {name}]", "accent"))
        else:
            cells.append(Cell(f" {mode.digit} {name}".rstrip() + " "))
    return [*cells, Cell(crumbs, "dim")] if crumbs else cells


def footer_hints(actions: Sequence[Action], room: int) -> list[Cell]:
    """The keys that fit into so many cells, most useful first, and always how to see the rest."""
    fixed = (" : cmd  ? help  q quit ", " :  ?  q ")
    hints = [f" {action.key} {action.title} " for action in actions]
    last = fixed[0] if sum(map(cell_len, (*hints, fixed[0]))) <= room else fixed[1]
    left = room - cell_len(last)
    kept: list[str] = []
    for hint in hints:
        if cell_len(hint) > left - (2 if len(kept) + 1 < len(hints) else 0):
            kept.append(" …")
            break
        kept.append(hint)
        left -= cell_len(hint)
    return [*(Cell(hint) for hint in kept), Cell(last, "dim")]
