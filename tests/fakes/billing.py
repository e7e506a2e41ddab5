"""Lines, accepted manifests and a price book, for tests of billing."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from sqlalchemy import Connection, insert

from appliance.controlplane import sites
from appliance.controlplane.accepted import AcceptedManifest
from appliance.controlplane.billing import customers, price_book, tenants
from appliance.controlplane.billing.posting import post_manifest
from appliance.controlplane.billing.price_book import BookFile, PriceLine, RegionLine
from appliance.controlplane.billing.tenants import Party
from appliance.controlplane.database import Database
from appliance.controlplane.enrolment import appliance_id_of
from appliance.controlplane.examined import pack
from appliance.controlplane.site_tables import MANIFESTS
from appliance.domain.clock import iso
from appliance.manifests.canonical import encode
from appliance.manifests.codes import Code
from appliance.manifests.documents import (
    MANIFEST_SCHEMA,
    MANIFEST_TYPE,
    NO_HASH,
    EngineCounters,
    Header,
    Line,
    Totals,
)
from appliance.manifests.envelope import sign
from appliance.manifests.merkle import leaf_hash, root
from tests.fakes.entropy import SeededEntropy
from tests.fakes.sites import signing_key

HOUR_S = 3_600
DAY_S = 86_400
HOUR = 1_795_374_000  # 2026-11-22T19:00:00Z
NOW_NS = (HOUR + 1_800) * 1_000_000_000
KEY = signing_key(1)
SITE = appliance_id_of(KEY.public)
ALICE = "ten_" + "1" * 24
BOB = "ten_" + "2" * 24

# Prices of 1.00, 0.50 and 2.00 for a million tokens; three quarters of it in the region "eu".
BOOK = BookFile(
    "usd",
    [PriceLine("*", plan, 1_000_000, 500_000, 2_000_000) for plan in ("free", "business")],
    [RegionLine("usa", 10_000), RegionLine("eu", 7_500)],
    1_000,
    "1970-01-01T00:00:00Z",
)


def line(
    tenant_id: str = ALICE,
    *,
    hour_s: int = HOUR,
    tokens: tuple[int, int, int] = (100, 0, 10),
    model: str = "llama",
    region: str = "usa",
    price_class: str = "serverless",
    key: str = "1",
    requests: int = 1,
) -> Line:
    """`tokens`: input that was not cached, cached, output."""
    uncached, cached, output = tokens
    return Line(
        tenant_id=tenant_id,
        tenant=f"name-{tenant_id[-1]}",
        environment_id="env_" + "0" * 24,
        environment="prod",
        key_id="key_" + key * 24,
        model=model,
        model_digest="d" * 64,
        region=region,
        price_class=price_class,
        hour=iso(hour_s * 1_000_000_000).replace(".000Z", "Z"),
        requests=str(requests),
        input_tokens=str(uncached + cached),
        cached_tokens=str(cached),
        output_tokens=str(output),
        records_root=NO_HASH,
        salt="0" * 32,
    )


def manifest(
    seq: int, lines: Sequence[Line], holds: tuple[Code, ...] = (), site: str = SITE
) -> AcceptedManifest:
    return AcceptedManifest(site, 1, seq, f"{seq:064x}", lines, holds)


def store_signed(
    connection: Connection, seq: int, lines: Sequence[Line], holds: tuple[Code, ...] = ()
) -> None:
    """The manifest of these lines as ingest stores it: signed, chained, the site's new head."""
    site = sites.read(connection, SITE) or sites.insert_site(
        connection,
        appliance_id=SITE,
        name="site",
        customer="",
        key=KEY.public,
        lease_days=30,
        now_ns=NOW_NS,
    )
    raw = [encode(one) for one in lines]
    requests = sum(int(one.requests) for one in lines)
    nothing = Totals(requests="0", input_tokens="0", cached_tokens="0", output_tokens="0")
    header = Header(
        schema=MANIFEST_SCHEMA,
        appliance_id=SITE,
        epoch=1,
        seq=seq,
        prev_sha256=site.state.head_sha256,
        key_id=KEY.key_id,
        entitlement_id="",
        software_digest=NO_HASH,
        event_seq_lo=1,
        event_seq_hi=requests,
        line_count=len(lines),
        lines_root=root([leaf_hash(one) for one in raw]).hex(),
        totals=nothing,
        cumulative_totals=nothing,
        log_size=0,
        log_root=NO_HASH,
        last_receipt_sha256=NO_HASH,
        audit_head=NO_HASH,
        wall=iso(NOW_NS),
        watermark=iso(NOW_NS),
        boot_id="boot",
        mono_ns="1",
        regressions=0,
        engines=EngineCounters(prompt_tokens="0", generated_tokens="0"),
    )
    payload = encode(header)
    digest = sha256(payload).hexdigest()
    row = {
        "appliance_id": SITE,
        "epoch": 1,
        "seq": seq,
        "state": "accepted",
        "sha256": digest,
        "receipt_id": "r",
        "holds": " ".join(holds),
        "via": "wire",
        "received_at_ns": NOW_NS,
        "line_count": len(lines),
        "envelope": sign(MANIFEST_TYPE, payload, KEY).to_bytes(),
        "lines": pack(b"".join(one + b"\n" for one in raw)),
    }
    connection.execute(insert(MANIFESTS).values(row))
    state = replace(site.state, accepted_through=seq, head_sha256=digest)
    sites.store_state(connection, replace(site, state=state))


class Office:
    """What the vendor's people do, on one database."""

    def __init__(self, database: Database, book: BookFile | None = BOOK) -> None:
        self.database = database
        self.entropy = SeededEntropy(7)
        self.seq = 0
        if book is not None:
            self.prices(book)

    def prices(self, book: BookFile, now_ns: int = NOW_NS) -> int:
        return self.database.transact(
            lambda c: price_book.install(c, book, currency="usd", by="test", now_ns=now_ns)
        )

    def customer(self, name: str) -> str:
        made = self.database.transact(
            lambda c: customers.add(
                c, name, email="", by="test", now_ns=NOW_NS, entropy=self.entropy
            )
        )
        return made.customer_id

    def map(
        self, tenant_id: str, customer_id: str, plan: str = "business", since_s: int = 0
    ) -> None:
        def run(connection: Connection) -> None:
            tenants.map_tenant(
                connection,
                SITE,
                tenant_id,
                Party(customer_id, plan),
                since_s=since_s,
                by="test",
                now_ns=NOW_NS,
            )

        self.database.transact(run)

    def post(self, *lines: Line, holds: tuple[Code, ...] = ()) -> tuple[Code, ...]:
        """One more manifest of the site."""
        self.seq += 1
        accepted = manifest(self.seq, lines, holds)
        return self.database.transact(lambda c: post_manifest(c, accepted, NOW_NS))
