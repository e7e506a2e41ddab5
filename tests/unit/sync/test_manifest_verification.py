"""`manifest verify` finds what was changed, wherever, and does not invent defects."""

import sqlite3
from pathlib import Path

import pytest

from appliance.manifests.lines import Salts
from appliance.metering.chain import GENESIS, link
from appliance.metering.reader import LedgerReader
from appliance.sync.head_note import Note
from appliance.sync.manifest_verification import ManifestVerifier
from appliance.wire.manifests import ManifestVerification
from appliance.wire.records import canonical
from tests.fakes.sealed_site import AUDIT_HEAD, SealedSite, sealed_site


def verdict(
    site: SealedSite, *, note: Note | None = None, audit_heads: tuple[str, ...] = (AUDIT_HEAD,)
) -> ManifestVerification:
    verifier = ManifestVerifier(
        LedgerReader(site.home.ledger_file),
        Salts(site.identity.salts),
        audit_heads.__contains__,
        note,
        rest=lambda _worked_s: None,
    )
    return list(verifier.run())[-1]


@pytest.fixture
def site(tmp_path: Path) -> SealedSite:
    return sealed_site(tmp_path, manifests=5, records=4)


def change(site: SealedSite, statement: str) -> None:
    with site.writing() as connection:
        assert connection.execute(statement).rowcount > 0, statement


def test_a_sound_site_is_sound_and_says_what_is_not_sealed_yet(site: SealedSite) -> None:
    site.record(3)
    found = verdict(site, note=Note(1, 5, site.manifest(5).row.sha256))
    assert (found.ok, found.done, found.problems, found.notes) == (True, True, [], [])
    assert (found.checked, found.total, found.records, found.unsealed) == (5, 5, 20, 3)
    assert found.head_sha256 == site.manifest(5).row.sha256


def test_a_site_without_manifests_is_sound(tmp_path: Path) -> None:
    found = verdict(sealed_site(tmp_path, manifests=0))
    assert (found.ok, found.total) == (True, 0)


def test_progress_comes_manifest_by_manifest(site: SealedSite) -> None:
    verifier = ManifestVerifier(
        *(LedgerReader(site.home.ledger_file), Salts(site.identity.salts)),
        *((AUDIT_HEAD,).__contains__, None),
        rest=lambda _worked_s: None,
    )
    steps = [(step.done, step.checked) for step in verifier.run()]
    assert steps == [*((False, number) for number in range(1, 6)), (True, 5)]


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE records SET output_tokens = 1 WHERE seq = 7", "records 5 to 8"),
        ("UPDATE records SET record_id = 'rec_x' WHERE seq = 7", "records 5 to 8"),
        ("UPDATE records SET latency_ms = 999 WHERE seq = 7", "records 5 to 8"),
        ("UPDATE subjects SET tenant_id = 'ten_9' WHERE tenant_id = 'ten_1'", "not those"),
        ("UPDATE subjects SET key = 'other' WHERE tenant_id = 'ten_1'", "not those"),
        ("DELETE FROM records WHERE seq = 7", "records 5 to 8"),
        ("UPDATE manifests SET requests = 5 WHERE seq = 2", "Manifest 1-2: the list"),
        ("UPDATE manifests SET sha256 = zeroblob(32) WHERE seq = 2", "Manifest 1-2: the list"),
        ("UPDATE manifests SET record_seq_hi = 9 WHERE seq = 2", "Manifest 1-2: it marks"),
        ("DELETE FROM manifests WHERE seq = 2", "Manifest 1-3: GAP"),
        ("DELETE FROM manifests WHERE seq = 5", "end of the chain"),
        ("UPDATE chain SET output_tokens = output_tokens + 1", "end of the chain"),
        ("UPDATE chain SET frontier = x'0000000000000000'", "end of the chain"),
        ("UPDATE head SET seq = 19", "ends with record 19, but 20"),
        ("DELETE FROM manifest_lines WHERE seq = 2", "Manifest 1-3: GAP"),
    ],
)
def test_what_was_changed_is_found(site: SealedSite, statement: str, told: str) -> None:
    change(site, statement)
    found = verdict(site)
    assert not found.ok
    assert any(told in problem for problem in found.problems), found.problems


def test_one_bit_of_an_envelope_is_found(site: SealedSite) -> None:
    raw = bytearray(site.manifest(3).envelope)
    raw[len(raw) // 2] ^= 1
    with site.writing() as connection:
        connection.execute("UPDATE manifests SET envelope = ? WHERE seq = 3", (bytes(raw),))
    assert any(problem.startswith("Manifest 1-3: ") for problem in verdict(site).problems)


def test_a_ledger_that_was_changed_with_all_its_hashes_is_found(site: SealedSite) -> None:
    """`ledger verify` has nothing to say against it: every hash was made anew."""
    with site.writing() as connection:
        connection.execute("UPDATE records SET output_tokens = 1, v = 1 WHERE seq = 7")
        _rehash(connection, site)
    assert LedgerReader(site.home.ledger_file).verify().ok
    found = verdict(site)
    assert [problem for problem in found.problems if "records 5 to 8" in problem]


def _rehash(connection: sqlite3.Connection, site: SealedSite) -> None:
    """What a forger does who knows how the ledger is built."""
    from appliance.metering.schema import RECORD_SELECT  # noqa: PLC0415 (the forger's alone)
    from appliance.wire.records import Record  # noqa: PLC0415 (the same)

    before = GENESIS
    for row in connection.execute(f"{RECORD_SELECT} ORDER BY r.seq").fetchall():
        record = Record(*row[:-1])
        before = link(before, canonical(record))
        connection.execute("UPDATE records SET sha256 = ? WHERE seq = ?", (before, record.seq))
    connection.execute(
        "UPDATE head SET sha256 = ?, output_tokens = (SELECT sum(output_tokens) FROM records)",
        (before,),
    )
    connection.execute("DELETE FROM slots")
    connection.execute(
        "INSERT INTO slots SELECT settled_at_ns / 300000000000, subject_no, count(*),"
        " sum(input_tokens), sum(output_tokens), sum(cached_tokens), min(seq), max(seq)"
        " FROM records GROUP BY 1, 2"
    )


def test_an_older_copy_of_the_ledger_is_found(tmp_path: Path) -> None:
    site = sealed_site(tmp_path, manifests=2)
    copy = site.home.ledger_file.read_bytes()
    site.record(1)
    newest = site.seal()
    assert newest is not None
    for suffix in ("-wal", "-shm"):
        Path(f"{site.home.ledger_file}{suffix}").unlink(missing_ok=True)
    site.home.ledger_file.write_bytes(copy)
    assert verdict(site).ok  # nothing in the file tells
    found = verdict(site, note=Note(newest.epoch, newest.seq, newest.sha256))
    assert "older copy" in found.problems[0]


def test_an_audit_that_never_had_the_head_is_found(site: SealedSite) -> None:
    found = verdict(site, audit_heads=())
    assert "audit" in found.problems[0]
    assert len(found.problems) == 5


def test_a_clock_that_was_set_back_is_a_note_and_no_defect(tmp_path: Path) -> None:
    site = sealed_site(tmp_path, manifests=2)
    site.record(1)
    site.seal(wall_ns=site.now_ns - 86_400 * 1_000_000_000)
    found = verdict(site)
    assert found.ok
    assert found.notes == ["Manifest 1-3: CLOCK_REGRESSION"]
