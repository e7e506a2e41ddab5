"""A site as operators see it."""

import msgspec
from sqlalchemy import Connection, func, select

from appliance.controlplane import licences
from appliance.controlplane.billing.usage_table import HOLDS, HoldState
from appliance.controlplane.site_tables import EVIDENCE
from appliance.controlplane.sites import Site
from appliance.domain.clock import iso


class KeyView(msgspec.Struct, frozen=True):
    key_id: str
    since: str  # epoch-seq
    until: str
    revoked: str


class SiteView(msgspec.Struct, frozen=True):
    """`state`: active, frozen, or silent after more than its lease without a word."""

    appliance_id: str
    name: str
    customer: str
    state: str
    frozen_reason: str
    epoch: int
    accepted_through: int
    head_sha256: str
    requests: int  # since the beginning, as are the tokens
    input_tokens: int
    output_tokens: int
    last_received_at: str | None
    lag_s: int | None  # since then; None: nothing was ever received
    waiting: int  # manifests behind a gap
    open_holds: int  # rows of usage that are not billed
    evidence: int  # refused manifests that are kept
    lease_days: int
    entitlement_id: str
    expires: str
    enrolled_at: str
    keys: tuple[KeyView, ...]


def view(connection: Connection, site: Site, now_ns: int) -> SiteView:
    """Read what belongs to the site and put it together."""
    entitlement = licences.in_force(connection, site.appliance_id)
    last_ns = site.last_received_at_ns
    lag_s = None if last_ns is None else max(0, now_ns - last_ns) // 1_000_000_000
    silent = lag_s is not None and lag_s > site.lease_days * 86_400
    cumulative = site.state.cumulative
    return SiteView(
        appliance_id=site.appliance_id,
        name=site.name,
        customer=site.customer,
        state="frozen" if site.frozen else "silent" if silent else "active",
        frozen_reason=site.frozen_reason,
        epoch=site.state.epoch,
        accepted_through=site.state.accepted_through,
        head_sha256=site.state.head_sha256,
        requests=cumulative.requests,
        input_tokens=cumulative.input_tokens,
        output_tokens=cumulative.output_tokens,
        last_received_at=None if last_ns is None else iso(last_ns),
        lag_s=lag_s,
        waiting=site.waiting,
        open_holds=connection.execute(
            select(func.count())
            .select_from(HOLDS)
            .where(HOLDS.c.appliance_id == site.appliance_id, HOLDS.c.state == HoldState.OPEN.value)
        ).scalar_one(),
        evidence=connection.execute(
            select(func.count())
            .select_from(EVIDENCE)
            .where(EVIDENCE.c.appliance_id == site.appliance_id)
        ).scalar_one(),
        lease_days=site.lease_days,
        entitlement_id="" if entitlement is None else entitlement.entitlement_id,
        expires="" if entitlement is None else entitlement.expires,
        enrolled_at=iso(site.enrolled_at_ns),
        keys=tuple(
            KeyView(
                known.key.key_id,
                _place(known.since),
                _place(known.until),
                _place(known.revoked),
            )
            for known in site.known.keys
        ),
    )


def _place(place: tuple[int, int] | None) -> str:
    return "" if place is None else f"{place[0]}-{place[1]}"
