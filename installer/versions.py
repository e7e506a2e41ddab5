"""What is installed, and what was done: `versions` and `history`."""

from __future__ import annotations

import json
from typing import Any

from installer.layout import Layout
from installer.looking import installed_version
from installer.precedence import order
from installer.records import Manifest, read_lines
from installer.space import megabytes, size_of


def installed(layout: Layout) -> list[str]:
    """Versions whose whole tree is in /opt/crosslogic, the oldest first."""
    known = [
        made.target
        for name, made in Manifest(layout).made.items()
        if made.kind == "tree" and made.target and layout.outside(name).is_dir()
    ]
    return sorted(known, key=order)


def before(layout: Layout, current: str) -> str | None:
    """The version that an upgrade came from, or else the newest older one that is there."""
    there = [one for one in installed(layout) if order(one) < order(current)]
    came = [
        str(entry.get("from"))
        for entry in read_lines(layout.history)
        if entry.get("operation") == "upgrade"
        and entry.get("to") == current
        and entry.get("outcome") == "finished"
    ]
    return next((one for one in (*reversed(came), *reversed(there)) if one in there), None)


def show_versions(layout: Layout, *, as_json: bool) -> str:
    current = installed_version(layout)
    previous = before(layout, current) if current is not None else None
    rows = [
        {
            "version": one,
            "current": one == current,
            "previous": one == previous,
            "size_bytes": size_of(layout.version(one)),
        }
        for one in installed(layout)
    ]
    if as_json:
        return json.dumps(rows, indent=2)
    if not rows:
        return "No version is installed."
    return "\n".join(_version_line(row) for row in rows)


def _version_line(row: dict[str, Any]) -> str:
    mark = "*" if row["current"] else " "
    role = "in use" if row["current"] else "rollback goes to it" if row["previous"] else ""
    size = megabytes(row["size_bytes"])
    return f"{mark} {row['version']:<14} {size:>8}  {role}".rstrip()


def show_history(layout: Layout, *, as_json: bool) -> str:
    entries = list(read_lines(layout.history))
    if as_json:
        return json.dumps(entries, indent=2)
    if not entries:
        return "Nothing was done here yet."
    return "\n".join(_entry(entry) for entry in entries)


def _entry(entry: dict[str, Any]) -> str:
    """One operation: a line, and below it why, the way back, and the backup that was made."""
    at = str(entry.get("at", "?")).partition(".")[0].replace("T", " ")
    versions = " → ".join(str(entry[key]) for key in ("from", "to") if entry.get(key))
    took = f"{entry['seconds']} s" if "seconds" in entry else ""
    who = f"by {entry['by']}" if entry.get("by") else ""
    operation, outcome = entry.get("operation", "?"), entry.get("outcome", "?")
    line = f"{at} UTC  {operation:<9}  {versions:<17}  {outcome:<14}  {took:>8}  {who}".rstrip()
    below = [
        f"    {label}: {entry[key]}"
        for key, label in (("why", "why"), ("back", "way back"), ("backup", "backup before"))
        if entry.get(key)
    ]
    return "\n".join([line, *below])
