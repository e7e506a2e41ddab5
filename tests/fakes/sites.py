"""A site that seals manifests, without a ledger: records from a seed, keys from fixed bytes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from appliance.manifests.documents import EngineCounters
from appliance.manifests.keys import KnownKey, KnownSite
from appliance.manifests.lines import Salts, build_lines
from appliance.manifests.seal import ChainState, Moment, SealContext, Sealed, seal
from appliance.security.signing import SigningKey
from appliance.wire.records import Record

START_NS = 1_795_374_000_000_000_000  # 2026-11-22T19:00:00Z
MINUTE_NS = 60 * 1_000_000_000


def signing_key(number: int = 1) -> SigningKey:
    """The same key for the same number, always."""
    return SigningKey(sha256(f"key {number}".encode()).digest())


def make_record(seq: int, at_ns: int = START_NS, **changes: object) -> Record:
    """A plausible record; the same for the same arguments."""
    chance = random.Random(seq)

    def digits(of: str, count: int = 24) -> str:
        return sha256(of.encode()).hexdigest()[:count]

    fields: dict[str, object] = {
        "v": 1,
        "seq": seq,
        "record_id": f"rec_{digits(f'record {seq}', 28)}",
        "request_id": f"req_{digits(f'request {seq}', 28)}",
        "tenant_id": f"ten_{digits('acme')}",
        "tenant": "acme",
        "environment_id": f"env_{digits('prod')}",
        "environment": "prod",
        "key_id": f"key_{digits('ci')}",
        "key": "ci",
        "model": "llama-3.3-70b-instruct",
        "model_digest": f"sha256:{digits('weights', 64)}",
        "deployment_id": f"dep_{digits('deployment')}",
        "region": "EU",
        "operation": "chat",
        "price_class": "serverless",
        "node": "gpu-01",
        "status": "ok",
        "http_status": 200,
        "error_code": "",
        "measured": "engine",
        "prompt_estimate": chance.randrange(1, 2_000),
        "input_tokens": chance.randrange(100, 4_000),
        "output_tokens": chance.randrange(1, 1_500),
        "cached_tokens": chance.randrange(100),
        "opened_at_ns": at_ns - chance.randrange(10**10),
        "settled_at_ns": at_ns,
        "latency_ms": chance.randrange(50, 9_000),
        "first_token_ms": chance.randrange(20, 900),
    }
    return Record(**{**fields, **changes})  # type: ignore[arg-type]  # the fields of the class


@dataclass
class Site:
    """Seals window after window. `at_ns` is its clock and moves five minutes with each."""

    key: SigningKey = field(default_factory=signing_key)
    appliance_id: str = "apl_0123456789abcdef01234567"
    state: ChainState = field(default_factory=ChainState)
    salts: Salts = field(default_factory=lambda: Salts(bytes(range(32))))
    at_ns: int = START_NS + 5 * MINUTE_NS
    engines: tuple[int, int] = (0, 0)
    boot_id: str = "7b0c1f5e-52d3-4b2a-9d0e-3d5f0c9a1e77"
    mono_ns: int = 1_000_000_000
    records: dict[int, list[Record]] = field(default_factory=dict)  # of each manifest, by seq
    _record_count: int = 0

    def make_records(self, count: int, **changes: object) -> list[Record]:
        first = self._record_count + 1
        self._record_count += count
        at_ns = changes.pop("settled_at_ns", self.at_ns - MINUTE_NS)
        assert isinstance(at_ns, int)
        return [make_record(seq, at_ns, **changes) for seq in range(first, first + count)]

    def seal(self, records: Sequence[Record] | int = 3) -> tuple[bytes, bytes, Sealed]:
        """The next manifest: envelope and lines as they travel, and all that is known of it."""
        taken = self.make_records(records) if isinstance(records, int) else list(records)
        window = build_lines(taken, self.salts, self.state.epoch, self.state.seq + 1)
        low = self.state.event_seq_hi + 1
        self.engines = (
            self.engines[0] + window.totals.input_tokens,
            self.engines[1] + window.totals.output_tokens,
        )
        sealed = seal(
            *(self.state, window, low, low + len(taken) - 1),
            Moment(self.at_ns, self.mono_ns, self.boot_id),
            SealContext(
                appliance_id=self.appliance_id,
                software_digest=sha256(b"software").hexdigest(),
                entitlement_id="ent_0123456789abcdef01234567",
                last_receipt_sha256=sha256(b"receipt").hexdigest(),
                audit_head=sha256(b"audit").hexdigest(),
                engines=EngineCounters(
                    prompt_tokens=str(self.engines[0]), generated_tokens=str(self.engines[1])
                ),
            ),
            self.key,
        )
        self.state = sealed.next
        self.records[sealed.header.seq] = taken
        self.at_ns += 5 * MINUTE_NS
        self.mono_ns += 5 * MINUTE_NS
        return sealed.envelope.to_bytes(), window.ndjson, sealed

    def known(self) -> KnownSite:
        """What a control plane that enrolled this site knows of it."""
        return KnownSite(self.appliance_id, (KnownKey(self.key.public),))

    def copy(self) -> "Site":
        """A clone, as a restored snapshot is one."""
        return replace(self, records=dict(self.records))
