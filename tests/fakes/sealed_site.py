"""A home with a ledger and sealed manifests, made at once: no process, no event loop, no waiting.

    site = sealed_site(tmp_path, manifests=3)
    site.record(5, tenant_id="ten_2"); site.seal()
    archive.manifests_after(connection, 0, 0, 100)  # with site.reading() as connection

Time is the caller's: records and seals lie `step_s` apart from `start_ns` on.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from appliance.domain.ids import EnvironmentId, KeyId, TenantId
from appliance.manifests.archive import ManifestRow, StoredManifest, manifest
from appliance.manifests.lines import Salts
from appliance.manifests.seal import Moment, SealContext
from appliance.metering.book import Book
from appliance.metering.reader import LedgerReader
from appliance.registry.chain import GENESIS
from appliance.storage.database import connect
from appliance.sync.identity import Identity, establish
from appliance.sync.windows import make, read_window, standing
from appliance.wire.home import Home, find_home
from tests.fakes.entropy import SeededEntropy
from tests.fakes.ledger_items import NOON_NS, opening, settlement

_S = 1_000_000_000
DIGEST = "d1" * 32
AUDIT_HEAD = GENESIS.hex()  # of a site in which nothing was ever changed


@dataclass(slots=True)
class SealedSite:
    """One home. Everything is synchronous; each call is on the disk when it returns."""

    home: Home
    identity: Identity
    now_ns: int
    step_s: int
    boot_id: str = "b0071d00-0000-4000-8000-000000000001"
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def appliance_id(self) -> str:
        return self.identity.appliance_id

    def record(self, count: int = 1, **changes: Any) -> None:
        """Settle `count` requests, one each `step_s`; `changes` are fields of the opening."""
        items = []
        for _ in range(count):
            number = next(self._numbers)
            self.now_ns += self.step_s * _S
            whole = {"opened_at_ns": self.now_ns, **_tenant(number % 2), **changes}
            items.append(settlement(opening(number, **whole)))
        with self.writing() as connection:
            Book(connection).apply(connection, items)

    def seal(self, wall_ns: int | None = None) -> ManifestRow | None:
        """Seal what is new; None when nothing is."""
        self.now_ns += self.step_s * _S
        wall_ns = self.now_ns if wall_ns is None else wall_ns
        with self.reading() as connection:
            before = standing(connection)
        reader = LedgerReader(self.home.ledger_file)
        window = read_window(
            *(reader, Salts(self.identity.salts), before.chain, before.record_seq),
            rest=lambda _worked_s: None,
        )
        if window is None:
            return None
        context = SealContext(
            appliance_id=self.appliance_id,
            software_digest=DIGEST,
            entitlement_id=before.entitlement_id,
            last_receipt_sha256=before.last_receipt_sha256,
            audit_head=AUDIT_HEAD,
            engines=before.engines.counters(),
        )
        now = Moment(wall_ns, self.now_ns, self.boot_id)
        made = make(before.chain, window, now, context, self.identity.key)
        with self.writing() as connection:
            made.store(connection)
        return made.row

    def manifest(self, seq: int, epoch: int | None = None) -> StoredManifest:
        with self.reading() as connection:
            return manifest(connection, seq, epoch)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        connection = connect(self.home.ledger_file, read_only=True)
        connection.row_factory = None
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction. What raises inside it changes nothing."""
        connection = connect(self.home.ledger_file)
        connection.row_factory = None
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()


def sealed_site(
    folder: Path,
    manifests: int = 3,
    records: int = 4,
    *,
    seed: int = 1,
    start_ns: int = NOON_NS,
    step_s: int = 20,
) -> SealedSite:
    """A site in `folder` with this many manifests of this many records each.

    `seed` tells one site's secrets from another's.
    """
    home = find_home(str(folder / "home"))
    home.state.mkdir(parents=True)
    home.config_file.write_text('[site]\nname = "factory-7"\n')  # so that commands take it for one
    site = site_in(home, seed=seed, start_ns=start_ns, step_s=step_s)
    for _ in range(manifests):
        site.record(records)
        site.seal()
    return site


def site_in(home: Home, *, seed: int = 1, start_ns: int = NOON_NS, step_s: int = 20) -> SealedSite:
    """A site without records in a home that is there already."""
    home.secrets.mkdir(mode=0o700, exist_ok=True)
    identity = establish(home.secrets, home.ledger_file, SeededEntropy(seed))
    return SealedSite(home, identity, start_ns, step_s)


def _tenant(number: int) -> dict[str, Any]:
    return {
        "tenant_id": TenantId(f"ten_{number + 1}"),
        "tenant_name": ("acme", "globex")[number],
        "environment_id": EnvironmentId(f"env_{number + 1}"),
        "key_id": KeyId(f"key_{number + 1}"),
    }
