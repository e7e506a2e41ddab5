"""Windows and the chain: every record in one manifest, whatever clocks and others do."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pytest

from appliance.manifests import archive
from appliance.manifests.canonical import decode
from appliance.manifests.documents import Header
from appliance.manifests.engine_counts import (
    EngineCounts,
    EngineReading,
    EngineTally,
    advance,
    load_counts,
)
from appliance.manifests.envelope import parse
from appliance.manifests.errors import ChainMoved
from appliance.manifests.lines import Salts
from appliance.manifests.seal import Moment, SealContext
from appliance.metering.book import Book
from appliance.metering.reader import LedgerReader
from appliance.metering.schema import MIGRATIONS
from appliance.storage.database import connect, migrate
from appliance.sync.errors import KeyUnused, OtherManifestKey
from appliance.sync.head_note import read_note
from appliance.sync.identity import KEY_FILE, NEXT_KEY_FILE, establish, prepare_key
from appliance.sync.sealer import Sealer, Surroundings
from appliance.sync.windows import make, read_window, standing
from appliance.wire.home import find_home
from tests.fakes.ledger_items import opening, settlement
from tests.fakes.sealed_site import DIGEST, SealedSite, sealed_site, site_in

R = TypeVar("R")
YEAR_NS = 365 * 86_400 * 1_000_000_000
HEAD = "ad" * 32


class Writer:
    """Writes at once, on the caller's thread. `before` runs first, as somebody else would."""

    def __init__(self, site: SealedSite) -> None:
        self.site = site
        self.before: list[Callable[[], object]] = []

    def transact(self, run: Callable[[sqlite3.Connection], R]) -> Future[R]:
        while self.before:
            self.before.pop()()
        future: Future[R] = Future()
        try:
            with self.site.writing() as connection:
                result = run(connection)
        # Handed to the future, as the ledger's thread does.
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)
        else:
            future.set_result(result)
        return future


class SiteClock:
    """The time of a sealed site, plus what somebody set it by."""

    def __init__(self, site: SealedSite) -> None:
        self.site = site
        self.set_by_ns = 0

    def wall_ns(self) -> int:
        return self.site.now_ns + self.set_by_ns

    def monotonic_s(self) -> float:
        return self.site.now_ns / 1_000_000_000


class Bench:
    """A sealer over a ledger that the test fills."""

    def __init__(self, folder: Path) -> None:
        self.site = sealed_site(folder, manifests=0)
        self.writer = Writer(self.site)
        self.clock = SiteClock(self.site)
        self.tally = EngineTally()
        self.sealed = 0

        async def head() -> str:
            return HEAD

        surroundings = Surroundings(head, self.tally, DIGEST, "boot-1")
        self.sealer = Sealer(
            *(self.site.home.ledger_file, self.writer, self.site.home.secrets),
            *(self.site.identity, surroundings, self.clock),
            window_s=300,
            note_file=self.site.home.manifest_note,
        )
        self.sealer.on_sealed(self._count)

    def _count(self) -> None:
        self.sealed += 1

    async def seal(self, records: int = 2) -> Header:
        """Record and seal; the header of the manifest."""
        self.site.record(records)
        self.site.now_ns += 1_000_000_000
        (row,) = await self.sealer.seal()
        return self.header(row.seq)

    def header(self, seq: int) -> Header:
        return decode(parse(self.site.manifest(seq).envelope).payload, Header)

    def ranges(self) -> list[tuple[int, int]]:
        with self.site.reading() as connection:
            rows = archive.manifest_rows(connection)
        return [(row.record_seq_lo, row.record_seq_hi) for row in rows]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_a_header_says_where_and_with_what_it_was_sealed(bench: Bench) -> None:
    header = await bench.seal(3)
    assert (header.event_seq_lo, header.event_seq_hi, header.seq) == (1, 3, 1)
    assert header.audit_head == HEAD
    assert header.software_digest == DIGEST
    assert header.boot_id == "boot-1"
    assert header.appliance_id == f"apl_{header.key_id[:24]}"
    assert bench.sealed == 1
    note = read_note(bench.site.home.manifest_note)
    assert note is not None
    assert (note.epoch, note.seq) == (1, 1)


async def test_windows_follow_one_another_and_nothing_new_makes_none(bench: Bench) -> None:
    first, second = await bench.seal(3), await bench.seal(2)
    assert await bench.sealer.seal() == []
    assert second.prev_sha256 == bench.site.manifest(1).row.sha256
    assert bench.ranges() == [(1, 3), (4, 5)]
    assert int(second.cumulative_totals.requests) == 5
    assert (first.log_size, second.log_size) == (0, 1)


async def test_two_who_seal_at_once_make_each_record_sealed_once(bench: Bench) -> None:
    bench.site.record(4)
    await asyncio.gather(bench.sealer.seal(), bench.sealer.seal(), bench.sealer.seal())
    assert bench.ranges() == [(1, 4)]


async def test_a_chain_that_moved_meanwhile_is_continued_where_it_stands(bench: Bench) -> None:
    bench.site.record(2)
    # Somebody seals after this sealer has read the window, and before it writes.
    bench.writer.before.append(bench.site.seal)
    bench.site.record(1)
    assert await bench.sealer.seal() == []
    assert bench.ranges() == [(1, 3)]
    bench.site.record(1)
    await bench.sealer.seal()
    assert bench.ranges() == [(1, 3), (4, 4)]


def test_a_manifest_made_for_a_chain_that_moved_is_not_stored(tmp_path: Path) -> None:
    site = sealed_site(tmp_path, manifests=0)
    site.record(2)
    with site.reading() as connection:
        before = standing(connection)
    reader, salts = LedgerReader(site.home.ledger_file), Salts(site.identity.salts)
    window = read_window(
        reader, salts, before.chain, before.record_seq, rest=lambda _worked_s: None
    )
    assert window is not None
    context = SealContext(site.appliance_id, DIGEST)
    stale = make(before.chain, window, Moment(1, 1, ""), context, site.identity.key)
    kept = site.seal()
    with pytest.raises(ChainMoved), site.writing() as connection:
        stale.store(connection)
    with site.reading() as connection:
        assert archive.manifest_rows(connection) == [kept]


@pytest.mark.parametrize("moved_ns", [-YEAR_NS, YEAR_NS], ids=["back", "forward"])
async def test_a_clock_that_is_set_keeps_nothing_from_being_sealed(
    bench: Bench, moved_ns: int
) -> None:
    before = await bench.seal()
    bench.clock.set_by_ns = moved_ns
    after = await bench.seal()
    later = await bench.seal()
    assert bench.ranges() == [(1, 2), (3, 4), (5, 6)]
    if moved_ns < 0:
        assert (before.regressions, after.regressions, later.regressions) == (0, 1, 2)
        assert after.watermark >= before.watermark
    else:
        assert later.regressions == 0
        assert after.watermark > before.watermark


async def test_a_clock_that_goes_forward_and_back_while_idle_is_remembered(bench: Bench) -> None:
    await bench.seal()
    with bench.site.writing() as connection:
        archive.raise_watermark(connection, bench.clock.wall_ns() + YEAR_NS)
    assert (await bench.seal()).regressions == 1


async def test_engine_counters_survive_restarts_of_engines(bench: Bench) -> None:
    observe = bench.tally.observe
    observe(EngineReading("rep_1", "a", 60, 6))
    observe(EngineReading("rep_1", "a", 100, 10))
    first = await bench.seal()
    observe(EngineReading("rep_1", "a", 150, 15))
    observe(EngineReading("rep_2", "x", 7, 7))
    second = await bench.seal()
    observe(EngineReading("rep_1", "a", 160, 16))
    observe(EngineReading("rep_1", "b", 20, 2))  # started again between two seals
    third = await bench.seal()
    fourth = await bench.seal()
    assert {reading.incarnation for reading in bench.tally.readings()} == {"x", "b"}
    told = [
        (header.engines.prompt_tokens, header.engines.generated_tokens)
        for header in (first, second, third, fourth)
    ]
    assert told == [("100", "10"), ("157", "22"), ("187", "25"), ("187", "25")]


async def test_engine_counters_go_on_after_a_restart_of_the_appliance(bench: Bench) -> None:
    bench.tally.observe(EngineReading("rep_1", "a", 100, 10))
    await bench.seal()
    bench.tally.sealed(bench.tally.readings())
    # A tally that knows nothing hears of the engine that went on: only the difference is new.
    again = EngineTally()
    again.observe(EngineReading("rep_1", "a", 130, 12))
    with bench.site.reading() as connection:
        counts = advance(load_counts(connection), again.readings())
    assert (counts.prompt_tokens, counts.generated_tokens) == (130, 12)


def test_a_counter_that_falls_or_is_impossible_never_makes_the_sum_fall() -> None:
    counts = advance(EngineCounts(), [EngineReading("rep_1", "a", 100, 10)])
    fallen = advance(counts, [EngineReading("rep_1", "a", 30, 3)])
    assert (fallen.prompt_tokens, fallen.generated_tokens) == (130, 13)
    for nonsense in (-1, 2**63):
        same = advance(fallen, [EngineReading("rep_1", "a", nonsense, 0)])
        assert (same.prompt_tokens, same.generated_tokens) == (130, 13)


async def test_a_rotated_key_signs_from_the_next_manifest_on(bench: Bench) -> None:
    first = await bench.seal()
    new = await bench.sealer.rotate()
    with pytest.raises(KeyUnused):
        await bench.sealer.rotate()
    second = await bench.seal()
    assert second.key_id == new.key_id != first.key_id
    assert second.appliance_id == first.appliance_id


async def test_a_rotation_that_a_crash_cut_off_is_completed_at_the_next_start(
    bench: Bench,
) -> None:
    await bench.seal()
    secrets = bench.site.home.secrets
    old = (secrets / KEY_FILE).read_bytes()
    new = await bench.sealer.rotate()
    # As if the process had died between the transaction and the rename.
    (secrets / NEXT_KEY_FILE).write_bytes((secrets / KEY_FILE).read_bytes())
    (secrets / NEXT_KEY_FILE).chmod(0o600)
    (secrets / KEY_FILE).write_bytes(old)
    again = establish(secrets, bench.site.home.ledger_file)
    assert again.key.key_id == new.key_id
    assert not (secrets / NEXT_KEY_FILE).exists()


async def test_a_rotation_that_never_became_true_leaves_the_old_key(bench: Bench) -> None:
    await bench.seal()
    prepare_key(bench.site.home.secrets)  # and then it died
    again = establish(bench.site.home.secrets, bench.site.home.ledger_file)
    assert again.key.key_id == bench.site.identity.key.key_id


def test_the_secrets_of_another_site_are_refused(tmp_path: Path) -> None:
    ours, theirs = sealed_site(tmp_path / "a", 1), sealed_site(tmp_path / "b", 1, seed=2)
    key = (theirs.home.secrets / KEY_FILE).read_bytes()
    (ours.home.secrets / KEY_FILE).write_bytes(key)
    with pytest.raises(OtherManifestKey) as caught:
        establish(ours.home.secrets, ours.home.ledger_file)
    assert ours.identity.key.key_id[:16] in caught.value.message


def test_establishing_again_changes_nothing(tmp_path: Path) -> None:
    site = sealed_site(tmp_path, 1)
    again = establish(site.home.secrets, site.home.ledger_file)
    assert again.key.public == site.identity.key.public
    assert (again.appliance_id, again.salts) == (site.appliance_id, site.identity.salts)
    assert again.salts.hex() not in repr(again)


async def test_a_ledger_of_before_manifests_is_sealed_from_its_first_record(
    tmp_path: Path,
) -> None:
    home = find_home(str(tmp_path / "home"))
    home.secrets.mkdir(parents=True, mode=0o700)
    migrate(home.ledger_file, MIGRATIONS[:1])
    with contextlib.closing(connect(home.ledger_file)) as connection:
        connection.row_factory = None
        connection.execute("BEGIN")
        Book(connection).apply(connection, [settlement(opening(n)) for n in range(30)])
        connection.execute("COMMIT")
    site = site_in(home)
    row = site.seal()
    assert row is not None
    assert (row.seq, row.record_seq_lo, row.record_seq_hi) == (1, 1, 30)
    assert LedgerReader(home.ledger_file).verify().ok
