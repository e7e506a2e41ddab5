"""What was refused is kept as it came, so that a person can look: so much of it as is allowed.

- What a site certainly signed (a fork above all) is always kept.
- What anybody could have sent fills no disk: so many rows of a site, so many bytes of each.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, RowMapping, func, insert, select

from appliance.controlplane.site_tables import EVIDENCE, MANIFESTS
from appliance.controlplane.sites import raw_sha256
from appliance.manifests.codes import Code
from appliance.manifests.verify import Finding

NOBODY: Final = ""  # whose evidence is of no known site
# Found before the signature was known to be right, or of lines that anybody could have put there.
_OF_ANYBODY: Final = frozenset(
    {
        Code.TOO_LARGE,
        Code.MALFORMED,
        Code.UNSUPPORTED_SCHEMA,
        Code.UNKNOWN_APPLIANCE,
        Code.UNKNOWN_KEY,
        Code.KEY_REVOKED,
        Code.SIG_INVALID,
        Code.LINES_ROOT_MISMATCH,
    }
)


@dataclass(frozen=True, slots=True)
class Caps:
    """Of what anybody can send."""

    rows: int = 1_000  # of one site
    bytes: int = 1024 * 1024  # of one manifest


@dataclass(frozen=True, slots=True)
class Refused:
    """A manifest as it came, and why it is not accepted. `place`: (0, 0) when none was read."""

    envelope: bytes
    lines: bytes
    finding: Finding
    place: tuple[int, int]
    via: str


def keep(
    connection: Connection, appliance_id: str, refused: Refused, caps: Caps, now_ns: int
) -> bool:
    """Whether it was not known yet, is certainly the site's, and is kept now."""
    sha256 = raw_sha256(refused.envelope, refused.lines)
    code = refused.finding.code
    key = (
        EVIDENCE.c.appliance_id == appliance_id,
        EVIDENCE.c.sha256 == sha256,
        EVIDENCE.c.code == code.value,
    )
    if connection.execute(select(EVIDENCE.c.at_ns).where(*key)).first() is not None:
        return False
    envelope, lines = refused.envelope, refused.lines
    if code in _OF_ANYBODY:
        held = connection.execute(
            select(func.count())
            .select_from(EVIDENCE)
            .where(
                EVIDENCE.c.appliance_id == appliance_id,
                EVIDENCE.c.code.in_([one.value for one in _OF_ANYBODY]),
            )
        ).scalar_one()
        if held >= caps.rows:
            return False
        envelope = envelope[: caps.bytes]
        lines = lines[: caps.bytes - len(envelope)]
    connection.execute(
        insert(EVIDENCE).values(
            appliance_id=appliance_id,
            sha256=sha256,
            code=code.value,
            epoch=min(refused.place[0], 2**63 - 1),
            seq=min(refused.place[1], 2**63 - 1),
            detail=refused.finding.detail[:1_000].replace("\0", "?"),
            via=refused.via,
            at_ns=now_ns,
            bytes=len(refused.envelope) + len(refused.lines),
            envelope=envelope,
            lines=lines,
        )
    )
    return code not in _OF_ANYBODY


def listed(
    connection: Connection, appliance_id: str | None, count_max: int = 1_000
) -> list[RowMapping]:
    """What is kept, the newest first, without the bytes. None: of all sites."""
    columns = [column for column in EVIDENCE.c if column.name not in {"envelope", "lines"}]
    query = select(*columns).order_by(EVIDENCE.c.at_ns.desc()).limit(count_max)
    if appliance_id is not None:
        query = query.where(EVIDENCE.c.appliance_id == appliance_id)
    return list(connection.execute(query).mappings())


def found(connection: Connection, sha256: str) -> list[RowMapping]:
    """What is kept of the manifest whose hash begins so, with its bytes."""
    return list(
        connection.execute(
            select(EVIDENCE).where(EVIDENCE.c.sha256.startswith(sha256, autoescape=True)).limit(2)
        ).mappings()
    )


def accepted_instead(
    connection: Connection, appliance_id: str, place: tuple[int, int]
) -> RowMapping | None:
    """What is stored under the number of a manifest that was refused: of a fork, the other one."""
    return (
        connection.execute(
            select(MANIFESTS).where(
                MANIFESTS.c.appliance_id == appliance_id,
                MANIFESTS.c.epoch == place[0],
                MANIFESTS.c.seq == place[1],
            )
        )
        .mappings()
        .one_or_none()
    )
