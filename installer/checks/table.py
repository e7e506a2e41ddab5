"""Findings for a person, in 80 columns, and for a program, as JSON."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Sequence

from installer.checks.findings import Check, Finding, Group, Role, Severity

WIDTH = 80
SCHEMA = 1
_COLOURS = {
    Severity.OK: "32",
    Severity.NOTE: "36",
    Severity.WARNING: "33",
    Severity.BLOCKER: "31",
    Severity.UNKNOWN: "35",
}


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    # Words are not broken: a command to type stays whole even where it is wider than the table.
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=True,
    ) or [first.rstrip()]


def _printable(text: str) -> str:
    """A name from /proc may hold escape sequences; a terminal must not obey them."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def table(findings: Sequence[Finding], *, coloured: bool) -> str:
    """Each finding in a line; why and fix below those that want something done."""
    lines: list[str] = []
    for group in Group:
        members = [one for one in findings if one.group is group]
        if members:
            lines += ["", group.value.upper()]
        for one in members:
            word = f"{one.severity.value:<8}"
            name = one.id.partition(".")[2]
            head, *more = _wrapped(f"{name}: {_printable(one.seen)}", " " * 11, " " * 13)
            mark = f"\x1b[{_COLOURS[one.severity]}m{word}\x1b[0m" if coloured else word
            lines += [f"  {mark} {head[11:]}", *more]
            if one.severity is not Severity.OK:
                lines += _wrapped(one.why, " " * 13 + "why  ", " " * 18)
                lines += _wrapped(one.fix, " " * 13 + "fix  ", " " * 18)
    return "\n".join([*lines, "", _summary(findings)])


def _summary(findings: Sequence[Finding]) -> str:
    counts = Counter(one.severity for one in findings)
    told = ", ".join(f"{counts[severity]} {severity.value}" for severity in Severity)
    ready = "not ready: mend the blockers" if counts[Severity.BLOCKER] else "ready to install"
    return f"{len(findings)} checks: {told}\n{ready}"


def as_json(findings: Sequence[Finding], role: Role) -> str:
    """The schema of docs/PREFLIGHT.md; fields are added, and never change their meaning."""
    counts = Counter(one.severity for one in findings)
    return json.dumps(
        {
            "schema": SCHEMA,
            "role": role.value,
            "ready": counts[Severity.BLOCKER] == 0,
            "counts": {severity.value: counts[severity] for severity in Severity},
            "findings": [
                {
                    "id": one.id,
                    "group": one.group.value,
                    "severity": one.severity.value,
                    "seen": _printable(one.seen),
                    "why": one.why,
                    "fix": one.fix,
                }
                for one in findings
            ],
        },
        indent=2,
    )


def listing(checks: Sequence[Check]) -> str:
    """Names of the checks and what they look at."""
    lines: list[str] = []
    for one in checks:
        lines += [one.id, *_wrapped(one.looks_at.replace("`", ""), " " * 4, " " * 4)]
    return "\n".join(lines)
