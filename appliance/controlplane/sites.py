"""Sites as the control plane knows them: their keys, how far they reported, whether it is taken."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from sqlalchemy import Connection, RowMapping, delete, insert, or_, select, update

from appliance.controlplane.errors import UnknownSite
from appliance.controlplane.site_tables import SITE_KEYS, SITES
from appliance.manifests.keys import KnownKey, KnownSite, Place
from appliance.manifests.reported import ReportedState
from appliance.security.signing import PublicKey


@dataclass(frozen=True, slots=True)
class Site:
    """A row of `sites` with its keys. `state.frozen` and `frozen` are the same."""

    appliance_id: str
    name: str
    customer: str
    enrolled_at_ns: int
    known: KnownSite
    state: ReportedState
    frozen_reason: str
    last_received_at_ns: int | None
    lease_days: int
    waiting: int

    @property
    def frozen(self) -> bool:
        return self.state.frozen


def insert_site(
    connection: Connection,
    *,
    appliance_id: str,
    name: str,
    customer: str,
    key: PublicKey,
    lease_days: int,
    now_ns: int,
) -> Site:
    """Register a site that never reported. The caller has looked that it is new."""
    site = Site(
        appliance_id=appliance_id,
        name=name,
        customer=customer,
        enrolled_at_ns=now_ns,
        known=KnownSite(appliance_id, (KnownKey(key),)),
        state=ReportedState(),
        frozen_reason="",
        last_received_at_ns=None,
        lease_days=lease_days,
        waiting=0,
    )
    connection.execute(
        insert(SITES).values(
            appliance_id=appliance_id,
            name=name,
            customer=customer,
            enrolled_at_ns=now_ns,
            lease_days=lease_days,
            **_reported(site),
        )
    )
    _store_keys(connection, site)
    return site


def read(connection: Connection, appliance_id: str) -> Site | None:
    """The site, as it is at this moment."""
    return _read(connection, appliance_id, lock=False)


def lock(connection: Connection, appliance_id: str) -> Site | None:
    """The site, and nobody else changes it until this transaction ends. The first thing to do."""
    return _read(connection, appliance_id, lock=True)


def find(connection: Connection, reference: str, *, lock: bool = False) -> Site:
    """By id or name. Raises UnknownSite."""
    found = connection.execute(
        select(SITES.c.appliance_id).where(
            or_(SITES.c.appliance_id == reference, SITES.c.name == reference)
        )
    ).scalar()
    site = None if found is None else _read(connection, found, lock=lock)
    if site is None:
        raise UnknownSite(
            f"There is no site '{reference}'.",
            next_step="`cic control-plane sites list` shows their names and ids.",
        )
    return site


def every(connection: Connection) -> list[Site]:
    """All sites by their names."""
    ids = connection.execute(select(SITES.c.appliance_id).order_by(SITES.c.name)).scalars()
    found = [_read(connection, appliance_id, lock=False) for appliance_id in ids]
    return [site for site in found if site is not None]


def store_state(connection: Connection, site: Site) -> None:
    """Write what changes when a site reports, is frozen or freed."""
    connection.execute(
        update(SITES).where(SITES.c.appliance_id == site.appliance_id).values(**_reported(site))
    )


def store_keys(connection: Connection, site: Site) -> None:
    """Write the site's keys anew."""
    connection.execute(delete(SITE_KEYS).where(SITE_KEYS.c.appliance_id == site.appliance_id))
    _store_keys(connection, site)


def store_terms(connection: Connection, site: Site) -> None:
    """Write what operators change: name, customer, days of a lease."""
    connection.execute(
        update(SITES)
        .where(SITES.c.appliance_id == site.appliance_id)
        .values(name=site.name, customer=site.customer, lease_days=site.lease_days)
    )


def frozen(site: Site, reason: str) -> Site:
    """The site when nothing more is taken from it."""
    return replace(site, state=replace(site.state, frozen=True), frozen_reason=reason)


def freed(site: Site) -> Site:
    return replace(site, state=replace(site.state, frozen=False), frozen_reason="")


def stranger(appliance_id: str) -> Site:
    """What is known of a site that never enrolled: nothing."""
    return Site(
        appliance_id=appliance_id,
        name="",
        customer="",
        enrolled_at_ns=0,
        known=KnownSite(appliance_id, ()),
        state=ReportedState(),
        frozen_reason="",
        last_received_at_ns=None,
        lease_days=0,
        waiting=0,
    )


def raw_sha256(envelope: bytes, lines: bytes) -> str:
    """Of a manifest as it came, whatever it is."""
    return sha256(len(envelope).to_bytes(8, "big") + envelope + lines).hexdigest()


def _reported(site: Site) -> dict[str, object]:
    state = site.state
    return {
        "reported": state.to_bytes(),
        "epoch": state.epoch,
        "accepted_through": state.accepted_through,
        "head_sha256": state.head_sha256,
        "frozen": state.frozen,
        "frozen_reason": site.frozen_reason,
        "last_received_at_ns": site.last_received_at_ns,
        "waiting": site.waiting,
    }


def _read(connection: Connection, appliance_id: str, *, lock: bool) -> Site | None:
    query = select(SITES).where(SITES.c.appliance_id == appliance_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        return None
    keys = connection.execute(
        select(SITE_KEYS)
        .where(SITE_KEYS.c.appliance_id == appliance_id)
        .order_by(SITE_KEYS.c.number)
    ).mappings()
    return Site(
        appliance_id=appliance_id,
        name=row["name"],
        customer=row["customer"],
        enrolled_at_ns=row["enrolled_at_ns"],
        known=KnownSite(appliance_id, tuple(_known_key(key) for key in keys)),
        state=ReportedState.from_bytes(bytes(row["reported"])),
        frozen_reason=row["frozen_reason"],
        last_received_at_ns=row["last_received_at_ns"],
        lease_days=row["lease_days"],
        waiting=row["waiting"],
    )


def _known_key(row: RowMapping) -> KnownKey:
    return KnownKey(
        key=PublicKey.from_pem(row["pem"]),
        since=(row["since_epoch"], row["since_seq"]),
        until=_place(row["until_epoch"], row["until_seq"]),
        revoked=_place(row["revoked_epoch"], row["revoked_seq"]),
    )


def _place(epoch: int | None, seq: int | None) -> Place | None:
    return None if epoch is None or seq is None else (epoch, seq)


def _store_keys(connection: Connection, site: Site) -> None:
    keys: Sequence[KnownKey] = site.known.keys
    connection.execute(
        insert(SITE_KEYS),
        [
            {
                "appliance_id": site.appliance_id,
                "number": number,
                "key_id": known.key.key_id,
                "pem": known.key.pem,
                "since_epoch": known.since[0],
                "since_seq": known.since[1],
                "until_epoch": known.until[0] if known.until else None,
                "until_seq": known.until[1] if known.until else None,
                "revoked_epoch": known.revoked[0] if known.revoked else None,
                "revoked_seq": known.revoked[1] if known.revoked else None,
            }
            for number, known in enumerate(keys)
        ],
    )
