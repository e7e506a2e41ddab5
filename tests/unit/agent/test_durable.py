"""Small files of the agent, also where the disk takes nothing."""

from pathlib import Path

import msgspec
import pytest

from agent.durable import kept_message, read_message, write_message


class Note(msgspec.Struct, frozen=True):
    text: str


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    assert kept_message(tmp_path / "note.json", Note("one"))
    assert read_message(tmp_path / "note.json", Note) == Note("one")


def test_a_disk_that_takes_nothing_is_told_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    kept_message(path, Note("one"))
    (tmp_path / "note.json.new").mkdir()  # opening it for writing fails, as on a broken disk
    assert not kept_message(path, Note("two"))
    assert read_message(path, Note) == Note("one")


def test_what_is_of_this_boot_alone_waits_for_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("os.fsync", asked.append)
    write_message(tmp_path / "door.json", Note("one"), lasting=False)
    assert read_message(tmp_path / "door.json", Note) == Note("one")
    assert asked == []
    write_message(tmp_path / "door.json", Note("two"))
    assert len(asked) == 2  # the file, and the folder that names it
