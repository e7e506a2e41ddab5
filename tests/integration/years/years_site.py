"""A site's ledger and manifests of years, written in minutes by the product's own parts.

What differs from a running site is who turns the clock, and that many windows share a commit. What
was used is counted here as well, by plain sums, for the end of the path to be held against.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from appliance.domain.ids import EnvironmentId, KeyId, TenantId
from appliance.domain.usage import TokenCount
from appliance.manifests.lines import Salts
from appliance.manifests.seal import Moment, SealContext
from appliance.metering.book import Book
from appliance.metering.reader import LedgerReader
from appliance.metering.records import Settlement
from appliance.sync.windows import make, read_window, standing
from tests.fakes.ledger_items import opening, settlement
from tests.fakes.sealed_site import AUDIT_HEAD, DIGEST, SealedSite

S_NS = 1_000_000_000
HOUR_S, DAY_S = 3_600, 86_400
AT_ONCE = 1_000  # windows of one commit
BOOT = "b0071d00-0000-4000-8000-000000000001"


class Use(NamedTuple):
    """One request, as the site's own clock saw it end."""

    at_ns: int
    tenant: str
    key: int
    model: str
    region: str
    input: int  # with the cached ones
    cached: int
    output: int


@dataclass(frozen=True, slots=True)
class Window:
    """`wall_ns`: what the site's clock shows at sealing."""

    wall_ns: int
    uses: tuple[Use, ...]


class Used(NamedTuple):
    """What a bill is made of, by hour."""

    tenant: str
    model: str
    region: str
    kind: str
    hour_s: int


@dataclass(slots=True)
class YearsSite:
    site: SealedSite
    used: Counter[Used] = field(default_factory=Counter)
    windows: int = 0
    requests: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def live(self, windows: Iterable[Window]) -> None:
        """Serve and seal one window after the other."""
        rest = iter(windows)
        while some := list(itertools.islice(rest, AT_ONCE)):
            self._record(some)
            self._seal(some)

    def _record(self, windows: list[Window]) -> None:
        items = [self._settled(use) for window in windows for use in window.uses]
        with self.site.writing() as connection:
            Book(connection).apply(connection, items)

    def _settled(self, use: Use) -> Settlement:
        for kind, tokens in (
            ("input", use.input - use.cached),
            ("cached", use.cached),
            ("output", use.output),
        ):
            hour_s = use.at_ns // S_NS // HOUR_S * HOUR_S
            if tokens:
                self.used[Used(use.tenant, use.model, use.region, kind, hour_s)] += tokens
        self.requests += 1
        opened = opening(
            next(self._numbers),
            opened_at_ns=use.at_ns - 12_000_000,
            tenant_id=TenantId(f"ten_{use.tenant}"),
            tenant_name=use.tenant,
            environment_id=EnvironmentId(f"env_{use.tenant}"),
            key_id=KeyId(f"key_{use.tenant}_{use.key}"),
            key_name=f"key-{use.key}",
            model_name=use.model,
            region=use.region,
        )
        tokens = TokenCount(input=use.input, output=use.output, cached=use.cached)
        return settlement(opened, tokens=tokens, settled_at_ns=use.at_ns)

    def _seal(self, windows: list[Window]) -> None:
        """As the sealer does it, but for the commit."""
        reader, salts = LedgerReader(self.site.home.ledger_file), Salts(self.site.identity.salts)
        with self.site.writing() as connection:
            before = standing(connection)
            chain = before.chain
            context = SealContext(
                appliance_id=self.site.appliance_id,
                software_digest=DIGEST,
                entitlement_id=before.entitlement_id,
                last_receipt_sha256=before.last_receipt_sha256,
                audit_head=AUDIT_HEAD,
                engines=before.engines.counters(),
            )
            for window in windows:
                until = chain.record_seq_hi + len(window.uses)
                read = read_window(reader, salts, chain, until, rest=lambda _: None)
                assert read is not None
                assert read.record_seq_hi == until
                self.windows += 1
                now = Moment(window.wall_ns, self.windows * 300 * S_NS, BOOT)
                made = make(chain, read, now, context, self.site.identity.key)
                made.store(connection)
                chain = made.after
