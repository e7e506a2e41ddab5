"""Where an upgrade and a rollback go, what ends them, and what a cut-short one leaves to do."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from installer import upgrade as module
from installer import upgrade_run
from installer.bundle import Bundle
from installer.errors import (
    InstallerError,
    NotInstalled,
    NotTakenBack,
    OtherVersion,
    StepFailed,
    Unfinished,
    UpgradeFailed,
)
from installer.layout import Layout
from installer.move import Move
from installer.records import Journal, Made, Manifest, add_history
from installer.terminal import Teller
from installer.upgrade import Wanted, rollback, upgrade
from installer.upgrade_run import settle
from installer.versions import before, show_history

NOWHERE = Path("/nowhere")
QUIET = Teller(quiet=True)


def wanted(layout: Layout, **options: Any) -> Wanted:
    return replace(Wanted(layout, NOWHERE, json=True, yes=True), **options)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    made.records.mkdir(parents=True)
    return made


def with_versions(layout: Layout, *versions: str, current: str) -> None:
    manifest = Manifest(layout)
    for version in versions:
        layout.version(version).mkdir(parents=True)
        manifest.note(layout.version(version), Made("tree", target=version))
    layout.current.symlink_to(current)


def history(layout: Layout) -> list[dict[str, Any]]:
    return [json.loads(line) for line in layout.history.read_text().splitlines()]


@pytest.fixture
def acts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[Move], None]]:
    """Steps that do nothing, to be replaced; and a way back that is written down."""
    found: dict[str, Callable[[Move], None]] = dict.fromkeys(upgrade_run.ACTS, lambda _: None)
    monkeypatch.setattr(upgrade_run, "ACTS", found)
    return found


@pytest.fixture
def back(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(upgrade_run, "take_back", lambda move: found.append(move.current))
    return found


def test_a_rollback_goes_where_the_upgrade_came_from(layout: Layout) -> None:
    with_versions(layout, "1.0.0", "1.1.0", "1.2.0", current="1.2.0")
    assert before(layout, "1.2.0") == "1.1.0"
    came = {"operation": "upgrade", "from": "1.0.0", "to": "1.2.0"}
    add_history(layout, {**came, "outcome": "rolled back"})
    assert before(layout, "1.2.0") == "1.1.0"
    add_history(layout, {**came, "outcome": "finished"})
    assert before(layout, "1.2.0") == "1.0.0"
    assert before(layout, "1.0.0") is None


def test_a_rollback_to_a_version_that_was_named(
    layout: Layout, acts: dict[str, Callable[[Move], None]]
) -> None:
    with_versions(layout, "0.9.0", "1.0.0", "1.1.0", "1.2.0", current="1.1.0")
    told = json.loads(rollback(wanted(layout, to="1.0.0", dry_run=True), QUIET))
    assert (told["from"], told["to"]) == ("1.1.0", "1.0.0")
    for odd in ("1.2.0", "1.1.0", "0.9.0", "1.0.1", "../1.0.0", "current"):
        with pytest.raises(OtherVersion, match="does not lead to") as refused:
            rollback(wanted(layout, to=odd), QUIET)
        assert "It leads to: 1.0.0." in refused.value.next_step
    assert acts
    assert not layout.history.exists()


def test_a_backup_that_is_not_there_is_not_put_back(layout: Layout, tmp_path: Path) -> None:
    with_versions(layout, "1.0.0", "1.1.0", current="1.1.0")
    entry = {"operation": "upgrade", "from": "1.0.0", "to": "1.1.0", "outcome": "finished"}
    add_history(layout, {**entry, "backup": str(tmp_path / "b")})
    with pytest.raises(InstallerError, match="No backup is there"):
        rollback(wanted(layout, with_backup=True), QUIET)
    (tmp_path / "b").touch()
    told = json.loads(rollback(wanted(layout, with_backup=True, dry_run=True), QUIET))
    assert [one["name"] for one in told["steps"]] == [
        "check", "try", "switch", "restore", "restart", "prove",
    ]  # fmt: skip


@pytest.mark.parametrize("steps", [(), ("backup",), ("backup", "tree", "try")])
def test_what_was_cut_short_before_the_switch_needs_nothing(
    layout: Layout, back: list[str], steps: tuple[str, ...]
) -> None:
    journal = Journal(layout.journal)
    journal.begin("upgrade", {"from": "1.0.0", "to": "1.1.0"})
    for step in steps:
        journal.step(step)
        journal.done(step)
    assert settle(layout, QUIET) is not None
    assert back == []
    assert journal.unfinished() is None
    assert history(layout)[0]["outcome"] == "undone"


def test_what_was_cut_short_as_the_switch_began_is_taken_back(
    layout: Layout, back: list[str]
) -> None:
    journal = Journal(layout.journal)
    journal.begin("upgrade", {"from": "1.0.0", "to": "1.1.0", "bundle": "/b"})
    for step in ("backup", "tree", "try"):
        journal.step(step)
        journal.done(step)
    journal.note({"backup": "/x"})
    journal.step("switch")
    settle(layout, QUIET)
    assert back == ["1.0.0"]
    assert journal.unfinished() is None
    (entry,) = history(layout)
    assert (entry["outcome"], entry["why"], entry["backup"]) == (
        "rolled back", "cut short: switch", "/x",
    )  # fmt: skip


def test_what_was_proved_and_lacks_its_last_line_stays(layout: Layout, back: list[str]) -> None:
    with_versions(layout, "1.0.0", "1.1.0", current="1.1.0")
    journal = Journal(layout.journal)
    journal.begin("upgrade", {"from": "1.0.0", "to": "1.1.0"})
    journal.step("prove")
    journal.done("prove")
    assert settle(layout, QUIET) is None
    assert back == []
    assert Manifest(layout).version == "1.1.0"
    assert history(layout)[0]["outcome"] == "finished"


def test_a_way_back_that_fails_hides_no_reason_and_is_tried_again(
    layout: Layout,
    acts: dict[str, Callable[[Move], None]],
    monkeypatch: pytest.MonkeyPatch,
    back: list[str],
) -> None:
    with_versions(layout, "1.0.0", "1.1.0", current="1.1.0")

    def fail(_: Move) -> None:
        raise StepFailed("The engine is gone.", next_step="Look.")

    def fail_back(_: Move) -> None:
        raise OSError(30, "Read-only file system")

    works = upgrade_run.take_back
    acts["prove"] = fail
    monkeypatch.setattr(upgrade_run, "take_back", fail_back)
    with pytest.raises(NotTakenBack) as failed:
        rollback(wanted(layout), QUIET)
    assert "The engine is gone." in failed.value.message
    assert "Read-only file system" in failed.value.message
    assert "upgrade --undo" in failed.value.next_step
    (entry,) = history(layout)
    assert (entry["outcome"], entry["why"]) == ("not taken back", "prove: The engine is gone.")
    assert "Read-only" in entry["back"]
    with pytest.raises(NotTakenBack, match="Read-only"):
        upgrade(wanted(layout, undo=True), QUIET)
    monkeypatch.setattr(upgrade_run, "take_back", works)
    assert json.loads(upgrade(wanted(layout, undo=True), QUIET))["undone"] == "rollback"
    assert back == ["1.1.0"]
    assert [one["outcome"] for one in history(layout)] == [
        "not taken back", "not taken back", "rolled back",
    ]  # fmt: skip
    assert "way back: OSError: [Errno 30]" in show_history(layout, as_json=False)


def test_a_dry_run_takes_nothing_back_and_says_what_would_be(
    layout: Layout, back: list[str]
) -> None:
    with_versions(layout, "1.0.0", "1.1.0", current="1.0.0")
    journal = Journal(layout.journal)
    journal.begin("rollback", {"from": "1.1.0", "to": "1.0.0"})
    journal.step("switch")
    told = json.loads(rollback(wanted(layout, dry_run=True), QUIET))
    assert (told["from"], told["to"], told["cut_short"]) == ("1.1.0", "1.0.0", "rollback")
    assert back == []
    assert journal.unfinished() is not None


@pytest.mark.parametrize("error", [KeyError("version"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["switch", "restart", "prove"])
def test_whatever_ends_it_after_the_switch_it_goes_back(
    layout: Layout,
    acts: dict[str, Callable[[Move], None]],
    back: list[str],
    error: BaseException,
    step: str,
) -> None:
    with_versions(layout, "1.0.0", "1.1.0", current="1.1.0")

    def fail(_: Move) -> None:
        raise error

    acts[step] = fail
    with pytest.raises(UpgradeFailed, match="did not prove itself"):
        rollback(wanted(layout), QUIET)
    assert back == ["1.1.0"]
    assert history(layout)[0]["why"].startswith(step)


def test_another_operation_has_to_be_ended_first(layout: Layout) -> None:
    Journal(layout.journal).begin("uninstall", {})
    with pytest.raises(Unfinished, match="uninstall"):
        settle(layout, QUIET)


def test_without_an_installation_or_a_bundle_it_says_what_to_do(layout: Layout) -> None:
    with pytest.raises(NotInstalled):
        upgrade(wanted(layout), QUIET)
    with_versions(layout, "1.0.0", current="1.0.0")
    with pytest.raises(InstallerError) as refused:
        upgrade(wanted(layout), QUIET)
    assert "cic-installer upgrade BUNDLE" in refused.value.next_step
    with pytest.raises(InstallerError, match="is not there"):
        upgrade(wanted(layout, bundle="b"), QUIET)
    told = json.loads(upgrade(wanted(layout, undo=True), QUIET))
    assert told == {"undone": None, "version": "1.0.0"}


def test_a_failed_step_before_the_switch_changes_nothing(
    layout: Layout,
    acts: dict[str, Callable[[Move], None]],
    monkeypatch: pytest.MonkeyPatch,
    back: list[str],
) -> None:
    with_versions(layout, "1.0.0", current="1.0.0")
    monkeypatch.setattr(module, "_bundle", lambda *_: Bundle(NOWHERE, "1.1.0"))

    def fail(_: Move) -> None:
        raise OSError(28, "No space left on device")

    acts["tree"] = fail
    with pytest.raises(UpgradeFailed, match=r"1\.1\.0 was not taken: .*No space left"):
        upgrade(wanted(layout, bundle="b"), QUIET)
    assert back == []
    assert str(layout.current.readlink()) == "1.0.0"
    assert Journal(layout.journal).unfinished() is None
    (entry,) = history(layout)
    assert entry["outcome"] == "failed"


def test_a_reason_is_told_also_when_nothing_can_be_written_down(
    layout: Layout, acts: dict[str, Callable[[Move], None]], back: list[str]
) -> None:
    with_versions(layout, "1.0.0", "1.1.0", current="1.1.0")

    def fail(_: Move) -> None:
        layout.history.mkdir()  # as a full disk would: no line is taken
        raise StepFailed("The disk is full.")

    acts["restart"] = fail
    with pytest.raises(UpgradeFailed, match="The disk is full"):
        rollback(wanted(layout), QUIET)
    assert back == ["1.1.0"]
    assert Journal(layout.journal).unfinished() is not None
