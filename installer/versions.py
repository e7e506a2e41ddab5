"""What is installed, and what was done: `versions` and `history`."""

from __future__ import annotations

import json
from typing import Any

from installer.layout import Layout
from installer.looking import installed_version
from installer.records import Manifest, read_lines


def installed(layout: Layout) -> list[str]:
    """Versions whose whole tree is in /opt/crosslogic, the oldest first."""
    known = [
        made.target
        for name, made in Manifest(layout).made.items()
        if made.kind == "tree" and made.target and layout.outside(name).is_dir()
    ]
    return sorted(known, key=order)


def order(version: str) -> tuple[tuple[int, ...], int, str]:
    """Semantic versioning's precedence: 1.2.0-rc1 is before 1.2.0."""
    numbers, _, rest = version.partition("-")
    parts = tuple(int(part) if part.isdecimal() else 0 for part in numbers.split("."))
    return (parts, 0 if rest else 1, rest)


def show_versions(layout: Layout, *, as_json: bool) -> str:
    current = installed_version(layout)
    rows = [{"version": one, "current": one == current} for one in installed(layout)]
    if as_json:
        return json.dumps(rows, indent=2)
    if not rows:
        return "No version is installed."
    return "\n".join(f"{'*' if row['current'] else ' '} {row['version']}" for row in rows)


def show_history(layout: Layout, *, as_json: bool) -> str:
    entries = list(read_lines(layout.history))
    if as_json:
        return json.dumps(entries, indent=2)
    if not entries:
        return "Nothing was done here yet."
    return "\n".join(_line(entry) for entry in entries)


def _line(entry: dict[str, Any]) -> str:
    versions = " → ".join(str(entry[key]) for key in ("from", "to") if entry.get(key))
    took = f" in {entry['seconds']} s" if "seconds" in entry else ""
    why = f": {entry['why']}" if entry.get("why") else ""
    who = f" by {entry['by']}" if entry.get("by") else ""
    return f"{entry['at']}  {entry['operation']} {versions}  {entry['outcome']}{took}{who}{why}"
