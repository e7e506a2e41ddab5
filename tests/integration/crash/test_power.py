"""The model of a power cut itself: what must survive does, what may not sometimes does not."""

import random
import subprocess
import sys
from pathlib import Path

from tests.integration.crash.power import FOLDER, SECTOR, Disk, Entry, Kind, cut, said

A, B = b"a" * (2 * SECTOR), b"b" * (2 * SECTOR)
MADE = [Entry(Kind.CREATED, 2, 0, b"file"), Entry(Kind.SYNCED, FOLDER, 1, b"")]


def written(data: bytes, offset: int = 0) -> Entry:
    return Entry(Kind.WRITTEN, 2, offset, data)


def synced(before: int, kind: Kind = Kind.SYNCED) -> Entry:
    return Entry(kind, 2, before, b"")


def outcomes(*entries: Entry) -> set[bytes | None]:
    """Every content that `file` had after one of many cuts; None where it was not there."""
    return {cut([*entries], random.Random(seed)).get("file") for seed in range(400)}


def test_what_was_synced_is_there() -> None:
    assert outcomes(*MADE, written(A), synced(3)) == {A}


def test_what_was_not_synced_is_lost_torn_or_there() -> None:
    found = outcomes(*MADE, written(A), synced(3), written(B))
    half, other_half = A[:SECTOR] + B[:SECTOR], B[:SECTOR] + A[:SECTOR]
    assert found == {A, B, half, other_half}


def test_a_write_that_came_during_a_sync_is_not_covered_by_it() -> None:
    assert A in outcomes(*MADE, written(A), synced(3), written(B), synced(3))


def test_a_later_write_may_survive_an_earlier_one() -> None:
    assert bytes(2 * SECTOR) + B in outcomes(*MADE, written(A), written(B, 2 * SECTOR))


def test_a_sync_that_failed_is_not_repaired_by_the_next() -> None:
    failed = synced(3, Kind.SYNC_FAILED)
    assert b"" in outcomes(*MADE, written(A), failed, synced(4))
    assert outcomes(*MADE, written(A), failed, written(A), synced(5)) == {A}


def test_a_size_that_was_not_synced_is_either() -> None:
    cut_short = Entry(Kind.TRUNCATED, 2, SECTOR, b"")
    assert outcomes(*MADE, written(A), synced(3), cut_short) == {A, A[:SECTOR]}


def test_a_file_whose_folder_was_not_synced_may_be_missing() -> None:
    assert outcomes(MADE[0], written(A), synced(2)) == {None, A}
    removed = Entry(Kind.UNLINKED, 0, 0, b"file")
    assert outcomes(*MADE, written(A), synced(3), removed) == {None, A}


def test_a_process_is_recorded_as_it_writes(tmp_path: Path, recorder: Path) -> None:
    disk = Disk(tmp_path, recorder)
    program = f"""
import os
folder = os.open({str(disk.folder)!r}, os.O_RDONLY)
for name in ("file", "acks"):
    fd = os.open(os.path.join({str(disk.folder)!r}, name), os.O_RDWR | os.O_CREAT)
    os.write(fd, b"first ")
    os.pwrite(fd, b"second", 6)
    os.ftruncate(fd, 9)
    os.fsync(fd)
os.fsync(folder)
os.unlink(os.path.join({str(disk.folder)!r}, "file"))
"""
    subprocess.run([sys.executable, "-c", program], env=disk.environ, check=True, timeout=30)
    entries = disk.entries()
    kinds = [entry.kind for entry in entries]
    one_file = [Kind.CREATED, Kind.WRITTEN, Kind.WRITTEN, Kind.TRUNCATED, Kind.SYNCED]
    assert kinds == [*one_file, *one_file, Kind.SYNCED, Kind.UNLINKED]
    assert said(entries) == b"first second"
    assert outcomes(*entries[:-1]) == {b"first sec"}
