"""Lines, accepted manifests and a price book, for tests of billing."""

from collections.abc import Sequence

from sqlalchemy import Connection

from appliance.controlplane.accepted import AcceptedManifest
from appliance.controlplane.billing import customers, price_book, tenants
from appliance.controlplane.billing.posting import post_manifest
from appliance.controlplane.billing.price_book import BookFile, PriceLine, RegionLine
from appliance.controlplane.billing.tenants import Party
from appliance.controlplane.database import Database
from appliance.domain.clock import iso
from appliance.manifests.codes import Code
from appliance.manifests.documents import NO_HASH, Line
from tests.fakes.entropy import SeededEntropy

HOUR_S = 3_600
DAY_S = 86_400
HOUR = 1_795_374_000  # 2026-11-22T19:00:00Z
NOW_NS = (HOUR + 1_800) * 1_000_000_000
SITE = "apl_" + "a" * 24
ALICE = "ten_" + "1" * 24
BOB = "ten_" + "2" * 24

# Prices of 1.00, 0.50 and 2.00 for a million tokens; three quarters of it in the region "eu".
BOOK = BookFile(
    "usd",
    [PriceLine("*", plan, 1_000_000, 500_000, 2_000_000) for plan in ("free", "paid")],
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

    def map(self, tenant_id: str, customer_id: str, plan: str = "paid", since_s: int = 0) -> None:
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
