"""From records to lines: sums, order, salts, and nothing of one tenant in another's hash."""

from dataclasses import astuple
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.manifests import lines as lines_module
from appliance.manifests.canonical import decode
from appliance.manifests.documents import Line
from appliance.manifests.lines import (
    LineBuilder,
    Salts,
    Sums,
    build_lines,
    key_of,
    line_key,
    split_lines,
)
from appliance.manifests.merkle import leaf_hash, root
from appliance.manifests.moments import moment_ms
from appliance.manifests.verify import LIMITS
from appliance.wire.records import Record, canonical
from tests.fakes.sites import START_NS, make_record

SALTS = Salts(bytes(range(32)))
HOUR_NS = 3_600 * 1_000_000_000


def read(ndjson: bytes) -> list[Line]:
    return [decode(raw, Line) for raw in split_lines(ndjson)]


def test_one_line_for_each_of_the_eight_things_that_tell_lines_apart() -> None:
    one = make_record(1)
    changes: list[dict[str, object]] = [
        {},
        {"tenant_id": "ten_b"},
        {"environment_id": "env_b"},
        {"key_id": "key_b"},
        {"model": "other"},
        {"model_digest": "sha256:other"},
        {"region": "IN"},
        {"price_class": "reserved"},
        {"settled_at_ns": START_NS + HOUR_NS},
        # And what does not tell them apart:
        {
            "node": "gpu-02",
            "deployment_id": "dep_b",
            "operation": "embeddings",
            "status": "aborted",
        },
        {"settled_at_ns": START_NS + HOUR_NS - 1, "measured": "estimated"},
    ]
    records = [make_record(seq, **change) for seq, change in enumerate(changes, 1)]  # type: ignore[arg-type]
    lines = read(build_lines(records, SALTS, 1, 1).ndjson)
    assert len(lines) == 9
    assert sorted(int(line.requests) for line in lines) == [1] * 8 + [3]
    keys = [key_of(line) for line in lines]
    assert keys == sorted(set(keys))
    assert line_key(one) in keys


def test_the_sums_and_the_root_of_a_line_are_those_of_its_records() -> None:
    records = [make_record(seq) for seq in range(1, 8)]
    sealed = build_lines(records, SALTS, 1, 1)
    (line,) = read(sealed.ndjson)
    assert line.input_tokens == str(sum(record.input_tokens for record in records))
    assert line.cached_tokens == str(sum(record.cached_tokens for record in records))
    assert line.output_tokens == str(sum(record.output_tokens for record in records))
    leaves = [leaf_hash(SALTS.record(one.record_id) + canonical(one)) for one in records]
    assert line.records_root == root(leaves).hex()
    assert sealed.leaf_hashes == (leaf_hash(sealed.ndjson[:-1]),)
    assert sealed.root == sealed.leaf_hashes[0]
    assert sealed.totals == Sums.of(line)
    assert sealed.latest_ns == START_NS


def test_the_newest_name_of_a_tenant_is_the_line_s() -> None:
    records = [make_record(1, tenant="old"), make_record(2, tenant="new", environment="renamed")]
    (line,) = read(build_lines(records, SALTS, 1, 1).ndjson)
    assert (line.tenant, line.environment) == ("new", "renamed")


def test_salts_are_16_bytes_and_different_for_every_record_line_and_window() -> None:
    made = {
        SALTS.record("rec_1"),
        SALTS.record("rec_2"),
        SALTS.line(1, 1, 0, bytes(32)),
        SALTS.line(1, 1, 1, bytes(32)),
        SALTS.line(1, 2, 0, bytes(32)),
        SALTS.line(2, 1, 0, bytes(32)),
        SALTS.line(1, 1, 0, bytes(31) + b"\1"),
        Salts(bytes(32)).record("rec_1"),
    }
    assert len(made) == 8
    assert {len(salt) for salt in made} == {16}
    assert "0001" not in repr(SALTS)


def test_the_same_line_in_two_windows_has_two_hashes() -> None:
    records = [make_record(1)]
    first, second = (build_lines(records, SALTS, 1, seq) for seq in (1, 2))
    assert first.root != second.root
    assert read(first.ndjson)[0].records_root == read(second.ndjson)[0].records_root


def test_a_window_without_records_has_no_lines() -> None:
    sealed = build_lines([], SALTS, 1, 1)
    assert (sealed.ndjson, sealed.leaf_hashes, sealed.latest_ns) == (b"", (), 0)
    assert sealed.root == sha256().digest()
    assert sealed.totals == Sums()


def test_a_full_window_leaves_the_rest_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "LINES_MAX", 2)
    builder = LineBuilder(SALTS)
    records = [make_record(seq, key_id=f"key_{min(seq, 3)}") for seq in range(1, 5)]
    assert [builder.add(record) for record in records] == [True, True, False, False]
    assert builder.record_count == 2
    with pytest.raises(ValueError, match="too many"):
        build_lines(records, SALTS, 1, 1)
    monkeypatch.setattr(lines_module, "RECORDS_MAX", 1)
    builder = LineBuilder(SALTS)
    assert [builder.add(record) for record in records] == [True, False, False, False]
    assert builder.finish(1, 1).totals.requests == 1


def test_the_largest_window_fits_what_a_verifier_takes() -> None:
    longest = make_record(
        1,
        tenant="t" * 63,
        environment="e" * 63,
        model="m" * 127,
        price_class="serverless",
        input_tokens=2**62,
        output_tokens=2**62,
    )
    line_bytes = len(build_lines([longest], SALTS, 1, 1).ndjson)
    assert line_bytes <= LIMITS.line_bytes
    assert line_bytes * lines_module.LINES_MAX <= LIMITS.lines_bytes


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2**40))))
def test_lines_add_up_to_their_records_in_any_order(
    drawn: list[tuple[int, int, int]],
) -> None:
    records = [
        make_record(seq, START_NS + hour * HOUR_NS, key_id=f"key_{key}", input_tokens=tokens)
        for seq, (key, hour, tokens) in enumerate(drawn, 1)
    ]
    sealed = build_lines(records, SALTS, 1, 1)
    lines = read(sealed.ndjson)
    assert sealed.totals.requests == len(records) == sum(int(line.requests) for line in lines)
    assert sealed.totals.input_tokens == sum(record.input_tokens for record in records)
    assert len(lines) == len({line_key(record) for record in records})
    added = Sums()
    for line in lines:
        added += Sums.of(line)
    assert added == sealed.totals
    backward = build_lines(records[::-1], SALTS, 1, 1)
    assert astuple(backward.totals) == astuple(sealed.totals)
    assert [key_of(line) for line in read(backward.ndjson)] == [key_of(line) for line in lines]


@pytest.mark.parametrize(
    ("settled", "hour"),
    [
        ("2028-02-29T23:59:59.999", "2028-02-29T23:00:00Z"),  # a leap day
        ("2026-10-25T00:30:00.000", "2026-10-25T00:00:00Z"),  # clocks in Europe are set back
        ("2026-10-25T01:30:00.000", "2026-10-25T01:00:00Z"),
        ("2026-03-29T01:00:00.000", "2026-03-29T01:00:00Z"),  # and forward
        ("1970-01-01T00:00:00.000", "1970-01-01T00:00:00Z"),
        ("2016-12-31T23:59:59.999", "2016-12-31T23:00:00Z"),  # a leap second follows
    ],
)
def test_hours_are_utc_hours(settled: str, hour: str) -> None:
    at_ns = moment_ms(f"{settled}Z") * 1_000_000
    (line,) = read(build_lines([make_record(1, at_ns)], SALTS, 1, 1).ndjson)
    assert line.hour == hour


def test_lines_end_with_a_newline() -> None:
    assert split_lines(b"") == []
    assert split_lines(b"a\nb\n") == [b"a", b"b"]
    with pytest.raises(ValueError, match="no end"):
        split_lines(b"a\nb")


def test_a_record_s_hash_tells_nothing_without_its_salt() -> None:
    record: Record = make_record(1)
    other = Salts(bytes(32))
    first, second = (build_lines([record], salts, 1, 1) for salts in (SALTS, other))
    assert read(first.ndjson)[0].records_root != read(second.ndjson)[0].records_root
