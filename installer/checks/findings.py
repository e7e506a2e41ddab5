"""What a check is and what it finds: words shared by the checks, the runner and the reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from installer.checks.host import Host


class Severity(StrEnum):
    """How much a finding matters. Only a blocker keeps the appliance from being installed."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    BLOCKER = "blocker"
    UNKNOWN = "unknown"


class Group(StrEnum):
    """What part of the server a check looks at."""

    SYSTEM = "system"
    GPU = "gpu"
    MEMORY = "memory"
    DISK = "disk"
    NETWORK = "network"
    TIME = "time"
    POLICY = "policy"


class Role(StrEnum):
    """What the server is to be: the site's gateway, a GPU node, or both."""

    GATEWAY = "gateway"
    NODE = "node"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of the server."""

    role: Role = Role.ALL
    models_bytes: int = 100 * 1000**3
    """Room that the site's models will take."""
    built_at: datetime | None = None
    """When this program was built; the clock cannot be before it. None: not known."""

    @property
    def is_gateway(self) -> bool:
        return self.role is not Role.NODE

    @property
    def is_node(self) -> bool:
        return self.role is not Role.GATEWAY


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check decided. `fix` replaces the check's own when the case needs another."""

    severity: Severity
    seen: str
    fix: str = ""


def ok(seen: str) -> Verdict:
    return Verdict(Severity.OK, seen)


def note(seen: str, fix: str = "") -> Verdict:
    return Verdict(Severity.NOTE, seen, fix)


def warning(seen: str, fix: str = "") -> Verdict:
    return Verdict(Severity.WARNING, seen, fix)


def blocker(seen: str, fix: str = "") -> Verdict:
    return Verdict(Severity.BLOCKER, seen, fix)


def unknown(seen: str, fix: str = "") -> Verdict:
    return Verdict(Severity.UNKNOWN, seen, fix)


Decision = Callable[[Host, Wanted], Verdict]


@dataclass(frozen=True, slots=True)
class Check:
    """One question about the server, with why it is asked and what to do about the answer."""

    id: str
    group: Group
    looks_at: str
    why: str
    fix: str
    decide: Decision
    roles: frozenset[Role]


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one check, as it is shown and written. `fix` is empty when all is well."""

    id: str
    group: Group
    severity: Severity
    seen: str
    why: str
    fix: str


def check(
    name: str,
    *,
    looks_at: str,
    why: str,
    fix: str,
    roles: frozenset[Role] = frozenset(Role),
) -> Callable[[Decision], Check]:
    """Make a check of a function; its group is the first word of its name (`gpu.driver`)."""

    def made(decide: Decision) -> Check:
        group = Group(name.partition(".")[0])
        return Check(name, group, looks_at, why, fix, decide, roles)

    return made


def finding(asked: Check, verdict: Verdict) -> Finding:
    """A verdict with the reasons of its check."""
    fix = "" if verdict.severity is Severity.OK else verdict.fix or asked.fix
    return Finding(asked.id, asked.group, verdict.severity, verdict.seen, asked.why, fix)
