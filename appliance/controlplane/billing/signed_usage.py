"""Whether the ledger's rows still say what the accepted manifests say: read again from their lines.

Every accepted manifest of the span is read, its lines are added up as they were when it was
posted, and the sums are compared with the rows of usage. What differs is told row by row; rows of
usage without an accepted manifest are invented ones. Lines count as signed only while the site's
signature over them still holds (`stored_manifests`).
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, exists, or_, select, tuple_

from appliance.controlplane.billing import tenants
from appliance.controlplane.billing.posting import UsageKey, Used, gather, hour_s_of
from appliance.controlplane.billing.pricing import Tokens
from appliance.controlplane.billing.stored_manifests import StoredManifests
from appliance.controlplane.billing.tenants import Mapping
from appliance.controlplane.billing.usage_table import USAGE
from appliance.controlplane.site_tables import MANIFESTS, ManifestState
from appliance.manifests.codes import Code

AT_ONCE: Final = 500  # manifests that are read together
DAY_S: Final = 86_400
SECOND_NS: Final = 1_000_000_000


class _Line(msgspec.Struct, frozen=True, gc=False):
    """As much of a line as its usage is read from; its bytes are verified before."""

    hour: str
    tenant_id: str
    model: str
    region: str
    price_class: str
    requests: str
    input_tokens: str
    cached_tokens: str
    output_tokens: str


_LINES: Final = msgspec.json.Decoder(_Line)

Place = tuple[str, int, int]  # appliance, epoch, seq


@dataclass(frozen=True, slots=True)
class Span:
    """Hours from `from_s` on and before `until_s`, of one site or of all."""

    from_s: int
    until_s: int
    site: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """Signed minus stored, of one row of usage. `customer_id` and `plan` as stored, else mapped."""

    appliance_id: str
    epoch: int
    seq: int
    tenant_id: str
    model: str
    region: str
    hour_s: int
    customer_id: str
    plan: str
    requests: int
    tokens: Tokens


def differences(
    connection: Connection, span: Span, manifests_stored: StoredManifests
) -> list[Difference]:
    """Row by row; what is wrong with the manifests themselves is told to `manifests_stored`."""
    found: list[Difference] = []
    mappings: dict[str, Mapping] = {}
    hours: dict[str, int] = {}
    for manifests in _pages(connection, span):
        signed = {
            (row.appliance_id, row.epoch, row.seq): _signed(
                manifests_stored.lines(row), span, hours
            )
            for row in manifests
        }
        stored = _stored(connection, span, list(signed))
        for place, expected in signed.items():
            found += _compare(connection, place, expected, stored.get(place, []), mappings, hours)
    manifests_stored.count(span.site)
    found += _invented(connection, span)
    return found


def _pages(connection: Connection, span: Span) -> Iterator[list[Any]]:
    key = (MANIFESTS.c.appliance_id, MANIFESTS.c.epoch, MANIFESTS.c.seq)
    where: list[ColumnElement[bool]] = [MANIFESTS.c.state == ManifestState.ACCEPTED.value]
    if span.site is not None:
        where.append(MANIFESTS.c.appliance_id == span.site)
    # Usage comes after it happened, but for sites whose clock was ahead.
    received = MANIFESTS.c.received_at_ns >= (span.from_s - DAY_S) * SECOND_NS
    where.append(or_(received, MANIFESTS.c.holds.contains(Code.CLOCK_FUTURE.value)))
    after: Place | None = None
    while True:
        query = (
            select(*key, MANIFESTS.c.sha256, MANIFESTS.c.envelope, MANIFESTS.c.lines)
            .where(*where)
            .order_by(*key)
            .limit(AT_ONCE)
        )
        if after is not None:
            query = query.where(tuple_(*key) > after)
        rows = list(connection.execute(query))
        if not rows:
            return
        yield rows
        after = (rows[-1].appliance_id, rows[-1].epoch, rows[-1].seq)


def _signed(raw: bytes, span: Span, hours: dict[str, int]) -> dict[UsageKey, Used]:
    lines = _LINES.decode_lines(raw)
    for line in lines:
        if line.hour not in hours:
            hours[line.hour] = hour_s_of(line.hour)
    kept = [line for line in lines if span.from_s <= hours[line.hour] < span.until_s]
    return dict(gather(kept))


def _stored(connection: Connection, span: Span, places: list[Place]) -> dict[Place, list[Any]]:
    """Rows of usage of consecutive manifests. Manifests between them have none of the span."""
    key = (USAGE.c.appliance_id, USAGE.c.epoch, USAGE.c.seq)
    query = select(
        *key,
        USAGE.c.hour_s,
        USAGE.c.tenant_id,
        USAGE.c.model,
        USAGE.c.region,
        USAGE.c.price_class,
        USAGE.c.requests,
        USAGE.c.input_tokens,
        USAGE.c.cached_tokens,
        USAGE.c.output_tokens,
        USAGE.c.customer_id,
        USAGE.c.plan,
    ).where(
        and_(tuple_(*key) >= places[0], tuple_(*key) <= places[-1]),
        USAGE.c.hour_s >= span.from_s,
        USAGE.c.hour_s < span.until_s,
    )
    rows: dict[Place, list[Any]] = defaultdict(list)
    for row in connection.execute(query):
        rows[row[0], row[1], row[2]].append(row)
    return rows


def _compare(
    connection: Connection,
    place: Place,
    expected: dict[UsageKey, Used],
    stored: list[Any],
    mappings: dict[str, Mapping],
    hours: dict[str, int],
) -> list[Difference]:
    signed = {
        (hours[key.hour], *key[1:], used.requests, *used.tokens) for key, used in expected.items()
    }
    have = {tuple(row[3:12]) for row in stored}
    if signed == have and len(have) == len(stored):
        return []
    left = {row[:5]: row[5:] for row in signed}
    found = []
    for row in stored:
        key = tuple(row[3:8])
        used = left.pop(key, (0, 0, 0, 0))
        if used != tuple(row[8:12]):
            found.append(_difference(place, key, used, tuple(row[8:12]), row.customer_id, row.plan))
    for key, used in left.items():
        site = place[0]
        if site not in mappings:
            mappings[site] = tenants.mapping_of(connection, site)
        party = mappings[site].at(key[1], key[0])
        customer_id, plan = (party.customer_id, party.plan) if party else ("", "")
        found.append(_difference(place, key, used, (0, 0, 0, 0), customer_id, plan))
    return found


def _invented(connection: Connection, span: Span) -> list[Difference]:
    accepted = exists().where(
        MANIFESTS.c.appliance_id == USAGE.c.appliance_id,
        MANIFESTS.c.epoch == USAGE.c.epoch,
        MANIFESTS.c.seq == USAGE.c.seq,
        MANIFESTS.c.state == ManifestState.ACCEPTED.value,
    )
    query = select(USAGE).where(
        USAGE.c.hour_s >= span.from_s, USAGE.c.hour_s < span.until_s, ~accepted
    )
    if span.site is not None:
        query = query.where(USAGE.c.appliance_id == span.site)
    found = []
    for row in connection.execute(query):
        key = (row.hour_s, row.tenant_id, row.model, row.region, row.price_class)
        have = (row.requests, row.input_tokens, row.cached_tokens, row.output_tokens)
        place = (row.appliance_id, row.epoch, row.seq)
        found.append(_difference(place, key, (0, 0, 0, 0), have, row.customer_id, row.plan))
    return found


def _difference(
    place: Place,
    key: tuple[Any, ...],
    signed: tuple[Any, ...],
    have: tuple[Any, ...],
    customer_id: str,
    plan: str,
) -> Difference:
    """`key`: hour, tenant, model, region, class. Quantities: requests, input, cached, output."""
    hour_s, tenant_id, model, region, _ = key
    requests, *tokens = (one - other for one, other in zip(signed, have, strict=True))
    return Difference(
        *place, tenant_id, model, region, hour_s, customer_id, plan, requests, Tokens(*tokens)
    )
