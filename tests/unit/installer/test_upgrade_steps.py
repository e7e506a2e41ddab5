"""Steps of an upgrade by themselves: whose files they are, what is compared, what is remade."""

import os
import sqlite3
from pathlib import Path

import pytest

from installer.answers import Answers
from installer.bundle import Bundle
from installer.errors import StepFailed
from installer.layout import Layout
from installer.making import tree_files
from installer.move import Move
from installer.programs import Account
from installer.records import Journal, Made, Manifest
from installer.services import OwnProcess
from installer.upgrade_steps import _has_to_go_back, check_tree, give_to_gateway, unpack
from installer.work import Work

NOBODY = Account(65534, 65534)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "r")
    made.records.mkdir(parents=True)
    made.home.mkdir(parents=True)
    return made


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_a_restore_by_root_made_is_given_to_the_gateway(
    layout: Layout, tmp_path: Path
) -> None:
    (layout.home / "secrets").mkdir()
    outside = tmp_path / "outside"
    outside.touch()
    for name in ("registry.db", "secrets/pepper"):
        (layout.home / name).touch()
    (layout.home / "ledger.db").symlink_to(outside)
    (layout.home / "other").touch()
    give_to_gateway(layout, NOBODY)
    for name, uid in (
        ("registry.db", 65534),
        ("secrets", 65534),
        ("secrets/pepper", 65534),
        ("other", 0),
    ):
        assert (layout.home / name).stat().st_uid == uid, name
    assert outside.stat().st_uid == 0


def test_a_backup_goes_back_where_the_schema_was_changed_or_a_restore_was_cut(
    layout: Layout,
) -> None:
    for name in ("registry", "ledger"):
        with sqlite3.connect(layout.home / f"{name}.db") as database:
            database.execute("CREATE TABLE _migrations (name TEXT)")
            database.execute("INSERT INTO _migrations VALUES ('first')")
        database.close()
    assert not _has_to_go_back(layout.home, ["second"])
    (layout.home / "restore-plan.json").touch()
    assert _has_to_go_back(layout.home, ["second"])
    (layout.home / "restore-plan.json").unlink()
    with sqlite3.connect(layout.home / "ledger.db") as database:
        database.execute("INSERT INTO _migrations VALUES ('second')")
    database.close()
    assert _has_to_go_back(layout.home, ["second"])


def _work(layout: Layout, bundle: Bundle, told: list[str]) -> Work:
    services = OwnProcess(layout, with_agent=False)
    return Work(layout, Answers(), bundle, Manifest(layout), services, told.append)


def _move(layout: Layout, folder: Path, told: list[str]) -> Move:
    work = _work(layout, Bundle(folder, "1.1.0"), told)
    old = _work(layout, Bundle(layout.version("1.0.0"), "1.0.0"), told)
    return Move("upgrade", old, work, Journal(layout.journal), completion=False)


def _bundle(folder: Path) -> Path:
    """One whose `cic` says its version and does no more."""
    (folder / "tree/bin").mkdir(parents=True)
    cic = folder / "tree/bin/cic"
    cic.write_text("#!/bin/sh\necho cic 1.1.0\n")
    cic.chmod(0o755)
    (folder / "tree/code.py").write_text("x = 1\n")
    return folder


def test_what_an_earlier_try_left_is_used_when_it_is_the_same(
    layout: Layout, tmp_path: Path
) -> None:
    told: list[str] = []
    move = _move(layout, _bundle(tmp_path / "b"), told)
    tree = layout.version("1.1.0")
    unpack(move)
    first = tree.stat().st_ino
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__/code.pyc").touch()  # it was run
    unpack(move)
    assert tree.stat().st_ino == first
    (tree / "code.py").write_text("x = 2\n")  # another build of the same number, or a damage
    unpack(move)
    assert (tree / "code.py").read_text() == "x = 1\n"
    assert any("made anew" in line for line in told)


@pytest.mark.parametrize("harm", ["changed", "added", "missing"])
def test_a_version_that_is_not_as_it_was_installed_is_not_gone_back_to(
    layout: Layout, tmp_path: Path, harm: str
) -> None:
    move = _move(layout, _bundle(tmp_path / "b"), [])
    unpack(move)
    tree = layout.version("1.1.0")
    check_tree(move)
    if harm == "changed":
        (tree / "code.py").write_text("x = 3\n")
    elif harm == "added":
        (tree / "more.py").touch()
    else:
        (tree / "code.py").unlink()
    with pytest.raises(StepFailed, match="is not as version"):
        check_tree(move)


def test_a_version_that_was_never_written_down_is_taken_as_it_is(layout: Layout) -> None:
    move = _move(layout, layout.version("1.1.0"), [])
    layout.version("1.1.0").mkdir(parents=True)
    move.new.manifest.note(layout.version("1.1.0"), Made("tree", target="1.1.0"))
    check_tree(move)
    assert tree_files(layout.version("1.1.0")) == {}
