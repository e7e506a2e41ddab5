"""Sites that report to a control plane: enrolled, bundled, offered; and what it then holds."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import func, select

from appliance.controlplane import enrolment, sites
from appliance.controlplane.billing.usage_table import USAGE
from appliance.controlplane.enrolment import Act, appliance_id_of
from appliance.controlplane.ingest import Taken
from appliance.controlplane.licences import Terms
from appliance.controlplane.service import ControlPlane
from appliance.controlplane.site_tables import DOCUMENTS, EVIDENCE, MANIFESTS
from appliance.controlplane.sites import Site as KnownToUs
from appliance.manifests.bundle import CarriedManifest, KeyChain, write_usage
from appliance.manifests.canonical import decode, encode
from appliance.manifests.checkpoint import sign_checkpoint
from appliance.manifests.documents import MANIFEST_TYPE, Header, Receipt
from appliance.manifests.envelope import parse, sign
from appliance.manifests.keys import open_receipt
from appliance.security.signing import SigningKey
from tests.fakes.sites import Site, signing_key


def act(plane: ControlPlane) -> Act:
    return plane.act("alice")


def enrolled(plane: ControlPlane, number: int = 1, name: str = "berlin", **terms: Any) -> Site:
    """A site with the key of that number, known to the control plane."""
    key = signing_key(number)
    plane.database.transact(
        lambda connection: enrolment.register(
            connection, act(plane), name, key.public, Terms(customer="acme", **terms)
        )
    )
    return Site(key=key, appliance_id=appliance_id_of(key.public))


def sealed(site: Site, count: int, records: int = 2) -> list[CarriedManifest]:
    """The next manifests of a site, as they travel."""
    made = [site.seal(records) for _ in range(count)]
    return [CarriedManifest(s.header.epoch, s.header.seq, e, lines) for e, lines, s in made]


def offer(
    plane: ControlPlane,
    site: Site,
    manifests: Sequence[CarriedManifest],
    checkpoint: bytes = b"",
) -> list[Taken]:
    return list(plane.ingest.take(site.appliance_id, manifests, "wire", checkpoint))


def codes(taken: Sequence[Taken]) -> list[str]:
    return [one.code for part in taken for one in part.dispositions]


def receipt(plane: ControlPlane, taken: Taken) -> Receipt:
    """The last receipt of an answer, verified."""
    return open_receipt(taken.receipts[-1], plane.identity.key.public)


def resigned(manifest: CarriedManifest, key: SigningKey, **changes: Any) -> CarriedManifest:
    """The manifest with another header, signed as a site that lies would."""
    header = decode(parse(manifest.envelope).payload, Header)
    changed = msgspec.structs.replace(header, **{"key_id": key.key_id, **changes})
    envelope = sign(MANIFEST_TYPE, encode(changed), key).to_bytes()
    return CarriedManifest(changed.epoch, changed.seq, envelope, manifest.lines)


def known(plane: ControlPlane, site: Site) -> KnownToUs:
    found = plane.database.read(lambda connection: sites.read(connection, site.appliance_id))
    assert found is not None
    return found


def bundle(site: Site, manifests: Sequence[CarriedManifest], keys: KeyChain | None = None) -> bytes:
    """A `.usage` with all of them and the site's checkpoint."""
    chain = keys or KeyChain(first_key_pem=signing_key(1).public.pem)
    note = sign_checkpoint(site.appliance_id, site.state.log, site.key).note().encode()
    raw, count = write_usage(site.appliance_id, "berlin", chain, note, list(manifests))
    assert count == len(manifests)
    return raw


def clone(site: Site) -> Site:
    """A copy of the machine: the same key and state, from here on another life."""
    return replace(site, records=dict(site.records), boot_id="another boot")


def holdings(plane: ControlPlane) -> dict[str, int]:
    """How many rows of each kind there are, and the tokens that were posted."""
    counted = {"manifests": MANIFESTS, "evidence": EVIDENCE, "documents": DOCUMENTS}

    def run(connection: Any) -> dict[str, int]:
        found = {
            name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for name, table in counted.items()
        }
        sums = select(func.coalesce(func.sum(USAGE.c.requests), 0))
        return {**found, "requests": int(connection.execute(sums).scalar_one())}

    return plane.database.read(run)
