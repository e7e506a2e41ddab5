"""What manifests cost on one core: sealing, verifying headers and lines, proofs and their size.

    python -m tests.benchmarks.bench_manifests [--headers 2000] [--lines 20000] [--records 30000]

Each figure is the best of three runs: what else the machine does can only add to the time.
"""

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

from appliance.manifests.lines import Sums, build_lines
from appliance.manifests.merkle import Frontier
from appliance.manifests.proof import make_proof, verify_proof
from appliance.manifests.reported import Accepted, ReportedState, check_chain
from appliance.manifests.verify import Checked, check_bytes
from appliance.wire.records import Record
from tests.fakes.sites import MINUTE_NS, START_NS, Site, make_record

MONTH_MANIFESTS = 8_640
MONTH_RECORDS = 259_000_000


def best_s(run: Callable[[], object], times: int = 3) -> float:
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def spread(count: int, lines: int, at_ns: int, share: float = 0.0) -> list[Record]:
    """Records over so many keys; `share` of them on the first one."""
    chance = random.Random(7)

    def digits(of: str) -> str:
        return sha256(of.encode()).hexdigest()[:24]

    records = []
    for seq in range(1, count + 1):
        key = 0 if chance.random() < share else seq % lines
        settled = at_ns - chance.randrange(MINUTE_NS)
        records.append(
            make_record(
                MONTH_RECORDS + seq,
                settled,
                tenant_id=f"ten_{digits(f't{key}')}",
                tenant=f"customer-{key}",
                environment_id=f"env_{digits(f'e{key}')}",
                key_id=f"key_{digits(f'k{key}')}",
                key=f"key-{key}",
            )
        )
    return records


def measure_sealing(count: int) -> None:
    site, records = Site(), spread(count, 200, START_NS)
    taken = best_s(lambda: build_lines(records, site.salts, 1, 1))
    print(f"sealing               {count / taken:>10,.0f} records/s   (200 lines)")


def measure_headers(count: int) -> None:
    site = Site()
    sent = [site.seal(3)[:2] for _ in range(count)]
    known, now_ms = site.known(), site.at_ns // 1_000_000

    def run() -> None:
        state = ReportedState()
        for envelope, lines in sent:
            checked = check_bytes(envelope, lines, known)
            assert isinstance(checked, Checked), checked
            accepted = check_chain(state, checked, now_ms)
            assert isinstance(accepted, Accepted), accepted
            state = accepted.state

    print(f"verifying headers     {count / best_s(run):>10,.0f} headers/s   (1 line each)")


def measure_lines(count: int) -> None:
    site = Site()
    envelope, lines, _ = site.seal(spread(count, count, site.at_ns))
    known = site.known()

    def run() -> None:
        assert isinstance(check_bytes(envelope, lines, known), Checked)

    print(f"verifying lines       {count / best_s(run):>10,.0f} lines/s     ({count} lines)")


def measure_proofs(count: int, share: float) -> None:
    site, log = Site(), Frontier()
    for number in range(MONTH_MANIFESTS - 1):
        log.append(sha256(b"%d" % number).digest())
    served = Sums(MONTH_RECORDS, 312_456_789_012, 112_456_789_012, 98_456_789_123)
    site.state = replace(
        *(site.state,),
        seq=MONTH_MANIFESTS - 1,
        log=log,
        event_seq_hi=MONTH_RECORDS,
        cumulative=served,
        head_sha256=sha256(b"head").hexdigest(),
    )
    site.engines, site.mono_ns = (412_456_789_012, 98_456_789_123), 2_592_000_123_456_789
    records = spread(count, 200, site.at_ns, share)
    envelope, lines, _ = site.seal(records)
    sizes, key = [], site.key.public
    for record in records[:: count // 8]:
        proof = make_proof(envelope, lines, records, record.record_id, site.salts)
        sizes.append(len(proof))
    making = best_s(
        lambda: make_proof(envelope, lines, records, records[0].record_id, site.salts), 1
    )
    checking = best_s(lambda: verify_proof(proof, key))
    print(
        f"proofs                {min(sizes)} to {max(sizes)} bytes, made in {making * 1e3:.0f} ms,"
        f" checked in {checking * 1e3:.2f} ms   ({count} records, {share:.0%} in one line)"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--headers", type=int, default=2_000)
    options.add_argument("--lines", type=int, default=20_000)
    options.add_argument("--records", type=int, default=30_000)
    chosen = options.parse_args()
    measure_sealing(chosen.records)
    measure_headers(chosen.headers)
    measure_lines(chosen.lines)
    measure_proofs(chosen.records, 0.0)
    measure_proofs(chosen.records, 0.5)
    measure_proofs(chosen.records, 0.99)


if __name__ == "__main__":
    main()
