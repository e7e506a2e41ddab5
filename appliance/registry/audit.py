"""The audit: one entry for every change, each holding the hash of the one before."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AuditRow:
    seq: int  # 1, 2, 3 … without a gap
    at_ns: int
    actor: str
    action: str  # "create", "update", "suspend", "resume", "delete", "rotate", …
    object_kind: str  # "tenant", "environment", "key", …
    object_id: str
    object_name: str
    before: str | None  # JSON; None: it was not there
    after: str | None  # JSON; None: it is no more
    sha256: str  # hex, over the hash before and this entry


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    ok: bool
    entries: int
    head_sha256: str
    problems: tuple[str, ...]  # each names its seq


class Audit:
    async def list(self, *, since: int = 0, count_max: int = 1_000) -> list[AuditRow]:
        """Entries with seq > since, oldest first."""
        raise NotImplementedError

    async def verify(self) -> AuditVerdict:
        """Recompute the whole chain."""
        raise NotImplementedError
