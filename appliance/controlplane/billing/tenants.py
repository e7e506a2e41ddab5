"""Which customer pays for which tenant of which site, on which plan, from which hour on.

The mapping is a history: usage of an hour goes to who was mapped at that hour, whenever it is
reported. The tenant "*" of a site stands for those that have no mapping of their own. A change
reaches no hour that is billed already.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Table,
    Text,
    and_,
    insert,
    or_,
    select,
    update,
)

from appliance.controlplane.billing.billing_errors import AlreadyBilled, UnknownPlan, UnknownTenant
from appliance.controlplane.billing.price_book import current
from appliance.controlplane.billing.pricing import ANY, HOUR_S
from appliance.controlplane.billing.usage_table import USAGE, UsageState
from appliance.controlplane.schema import METADATA
from appliance.domain.clock import iso
from appliance.manifests.documents import Plans, TenantPlan

# What the sites' lines told of their tenants: names for people.
TENANTS: Final = Table(
    "tenants",
    METADATA,
    Column("appliance_id", Text, primary_key=True),
    Column("tenant_id", Text, primary_key=True),
    Column("name", Text, nullable=False),  # as of the last line
    Column("first_seen_ns", BigInteger, nullable=False),
)
MAPPINGS: Final = Table(
    "tenant_mappings",
    METADATA,
    Column("appliance_id", Text, primary_key=True),
    Column("tenant_id", Text, primary_key=True),  # or "*"
    Column("since_s", BigInteger, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("created_at_ns", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
)


class Party(NamedTuple):
    """Who pays, and on which plan."""

    customer_id: str
    plan: str


@dataclass(frozen=True, slots=True)
class TenantRow:
    """A tenant of a site with one of its mappings; `customer_id` "" when it has none."""

    appliance_id: str
    tenant_id: str
    name: str
    customer_id: str
    plan: str
    since_s: int


class Mapping:
    """The mappings of one site, for every hour. Pure."""

    __slots__ = ("_points",)

    def __init__(self, points: Iterable[tuple[str, int, Party]]) -> None:
        self._points: dict[str, list[tuple[int, Party]]] = defaultdict(list)
        for tenant_id, since_s, party in points:
            self._points[tenant_id].append((since_s, party))
        for history in self._points.values():
            history.sort(reverse=True)

    def at(self, tenant_id: str, hour_s: int) -> Party | None:
        for tenant in (tenant_id, ANY):
            for since_s, party in self._points.get(tenant, ()):
                if since_s <= hour_s:
                    return party
        return None


def mapping_of(connection: Connection, appliance_id: str) -> Mapping:
    rows = connection.execute(select(MAPPINGS).where(MAPPINGS.c.appliance_id == appliance_id))
    return Mapping((row.tenant_id, row.since_s, Party(row.customer_id, row.plan)) for row in rows)


def map_tenant(
    connection: Connection,
    appliance_id: str,
    tenant_id: str,
    party: Party,
    *,
    since_s: int,
    by: str,
    now_ns: int,
) -> None:
    """From the hour of `since_s` on this customer pays. Raises UnknownPlan, AlreadyBilled.

    What is held for want of a mapping is released by `holds.recheck`, in the same transaction.
    """
    if "/" in party.plan or not current(connection).has_plan(party.plan):
        raise UnknownPlan(
            f"The price book has no price for the plan {party.plan!r}.",
            next_step="See `cic control-plane prices show`, or import prices for it first.",
        )
    since_s -= since_s % HOUR_S
    before = mapping_of(connection, appliance_id)
    key = and_(
        MAPPINGS.c.appliance_id == appliance_id,
        MAPPINGS.c.tenant_id == tenant_id,
        MAPPINGS.c.since_s == since_s,
    )
    made = {"customer_id": party.customer_id, "plan": party.plan}
    made_by = {"created_at_ns": now_ns, "created_by": by}
    if connection.execute(select(MAPPINGS.c.since_s).where(key)).first() is None:
        place = {"appliance_id": appliance_id, "tenant_id": tenant_id, "since_s": since_s}
        connection.execute(insert(MAPPINGS).values(**place, **made, **made_by))
    else:
        connection.execute(update(MAPPINGS).where(key).values(**made, **made_by))
    _refuse_billed(connection, appliance_id, tenant_id, since_s, before)


def _refuse_billed(
    connection: Connection, appliance_id: str, tenant_id: str, since_s: int, before: Mapping
) -> None:
    after = mapping_of(connection, appliance_id)
    query = (
        select(USAGE.c.tenant_id, USAGE.c.hour_s)
        .where(
            USAGE.c.appliance_id == appliance_id,
            USAGE.c.hour_s >= since_s,
            USAGE.c.state == UsageState.BILLED.value,
        )
        .distinct()
    )
    if tenant_id != ANY:
        query = query.where(USAGE.c.tenant_id == tenant_id)
    for row in connection.execute(query):
        if before.at(row.tenant_id, row.hour_s) != after.at(row.tenant_id, row.hour_s):
            raise AlreadyBilled(
                f"Usage of {row.tenant_id} at {iso(row.hour_s * 1_000_000_000)} is billed already, "
                "to another customer or on another plan.",
                next_step="Give a later `--since`, and correct the past by an adjustment.",
            )


def seen(connection: Connection, appliance_id: str) -> dict[str, str]:
    """Tenant ids to names, as the site's lines told them."""
    rows = connection.execute(select(TENANTS).where(TENANTS.c.appliance_id == appliance_id))
    return {row.tenant_id: row.name for row in rows}


def note_seen(
    connection: Connection,
    appliance_id: str,
    before: dict[str, str],
    now: dict[str, str],
    now_ns: int,
) -> None:
    """Remember new tenants and new names."""
    for tenant_id, name in sorted(now.items()):
        if tenant_id not in before:
            connection.execute(
                insert(TENANTS).values(
                    appliance_id=appliance_id,
                    tenant_id=tenant_id,
                    name=name,
                    first_seen_ns=now_ns,
                )
            )
        elif before[tenant_id] != name:
            connection.execute(
                update(TENANTS)
                .where(TENANTS.c.appliance_id == appliance_id, TENANTS.c.tenant_id == tenant_id)
                .values(name=name)
            )


def find(connection: Connection, appliance_id: str, reference: str) -> str:
    """The tenant's id, by id, name or "*". An id that was never reported may be mapped ahead.

    Raises UnknownTenant.
    """
    if reference == ANY or reference.startswith("ten_"):
        return reference
    rows = connection.execute(
        select(TENANTS.c.tenant_id).where(
            TENANTS.c.appliance_id == appliance_id,
            or_(TENANTS.c.tenant_id == reference, TENANTS.c.name == reference),
        )
    ).all()
    if len(rows) != 1:
        raise UnknownTenant(
            f"The site reported {len(rows)} tenants {reference!r}.",
            next_step="See `cic control-plane tenants list`, and use the id.",
        )
    return str(rows[0].tenant_id)


def list_tenants(connection: Connection, appliance_id: str | None = None) -> list[TenantRow]:
    """Every tenant that was seen or mapped, with each of its mappings."""
    both = TENANTS.outerjoin(
        MAPPINGS,
        and_(
            MAPPINGS.c.appliance_id == TENANTS.c.appliance_id,
            MAPPINGS.c.tenant_id == TENANTS.c.tenant_id,
        ),
    )
    query = select(
        TENANTS.c.appliance_id,
        TENANTS.c.tenant_id,
        TENANTS.c.name,
        MAPPINGS.c.customer_id,
        MAPPINGS.c.plan,
        MAPPINGS.c.since_s,
    ).select_from(both)
    ahead = select(MAPPINGS).where(
        ~select(TENANTS.c.tenant_id)
        .where(
            MAPPINGS.c.appliance_id == TENANTS.c.appliance_id,
            MAPPINGS.c.tenant_id == TENANTS.c.tenant_id,
        )
        .exists()
    )
    rows = [_tenant(row, row.name) for row in connection.execute(query)]
    rows += [_tenant(row, "") for row in connection.execute(ahead)]
    kept = [row for row in rows if appliance_id in {None, row.appliance_id}]
    return sorted(kept, key=lambda row: (row.appliance_id, row.tenant_id, row.since_s))


def document(connection: Connection, appliance_id: str) -> Plans | None:
    """What the site is told of its tenants' plans; None when nothing is mapped."""
    rows = connection.execute(
        select(MAPPINGS)
        .where(MAPPINGS.c.appliance_id == appliance_id)
        .order_by(MAPPINGS.c.tenant_id, MAPPINGS.c.since_s)
    ).all()
    if not rows:
        return None
    plans = tuple(
        TenantPlan(tenant_id=row.tenant_id, plan=row.plan, since=iso(row.since_s * 1_000_000_000))
        for row in rows
    )
    newest_ns = max(row.created_at_ns for row in rows)
    return Plans(appliance_id=appliance_id, version=newest_ns, tenants=plans, at=iso(newest_ns))


def _tenant(row: Any, name: str) -> TenantRow:
    return TenantRow(
        row.appliance_id,
        row.tenant_id,
        name,
        row.customer_id or "",
        row.plan or "",
        row.since_s or 0,
    )
