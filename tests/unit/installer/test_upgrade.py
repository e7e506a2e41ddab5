"""Which versions an upgrade and a rollback go to, and what a cut-short one leaves to do."""

import json
from pathlib import Path

import pytest

from installer import upgrade as module
from installer.bundle import Bundle
from installer.errors import InstallerError, NotInstalled, OtherVersion, Unfinished
from installer.layout import Layout
from installer.records import Journal, Made, Manifest, add_history
from installer.terminal import Teller
from installer.upgrade import Wanted, _before, _refuse, settle, upgrade

NOWHERE = Path("/nowhere")


def wanted(layout: Layout, bundle: str = "") -> Wanted:
    return Wanted(layout, bundle, True, False, True, (), True, NOWHERE)


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


@pytest.mark.parametrize(
    ("current", "to", "says"),
    [
        ("1.2.0", "1.2.0", "installed already"),
        ("1.2.0", "1.1.9", "older than 1.2.0"),
        ("1.2.0", "1.2.0-rc1", "older than 1.2.0"),
        ("1.9.0", "1.10.0", ""),
        ("1.2.0", "2.0.0", "another major version"),
    ],
)
def test_only_a_newer_version_of_the_same_major_is_taken(current: str, to: str, says: str) -> None:
    if not says:
        _refuse(current, Bundle(NOWHERE, to))
        return
    with pytest.raises(OtherVersion, match=says):
        _refuse(current, Bundle(NOWHERE, to))


def test_a_rollback_goes_where_the_upgrade_came_from(layout: Layout) -> None:
    with_versions(layout, "1.0.0", "1.1.0", "1.2.0", current="1.2.0")
    assert _before(layout, "1.2.0") == "1.1.0"
    add_history(layout, {"operation": "upgrade", "from": "1.0.0", "to": "1.2.0"})
    assert _before(layout, "1.2.0") == "1.0.0"
    with pytest.raises(OtherVersion, match="No version before"):
        _before(layout, "1.0.0")


def test_what_was_cut_short_before_the_switch_needs_nothing(layout: Layout) -> None:
    journal = Journal(layout.journal)
    journal.begin("upgrade", {"from": "1.0.0", "to": "1.1.0"})
    journal.done("backup")
    settle(layout, Teller(quiet=True))
    assert journal.unfinished() is None


def test_what_was_cut_short_after_it_is_taken_back(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, back = Journal(layout.journal), []
    journal.begin("upgrade", {"from": "1.0.0", "to": "1.1.0"})
    for step in ("backup", "tree", "try"):
        journal.done(step)
    monkeypatch.setattr(module, "_take_back", lambda old: back.append(old.bundle.version))
    settle(layout, Teller(quiet=True))
    assert back == ["1.0.0"]
    assert journal.unfinished() is None


def test_a_dry_run_takes_nothing_back(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(layout, "1.0.0", "1.1.0", current="1.1.0")
    journal = Journal(layout.journal)
    journal.begin("rollback", {"from": "1.1.0", "to": "1.0.0"})
    monkeypatch.setattr(module, "_take_back", lambda _: pytest.fail("it was taken back"))
    asked = Wanted(layout, "", True, True, True, (), True, NOWHERE)
    told = json.loads(module.rollback(asked, Teller(quiet=True)))
    assert (told["from"], told["to"]) == ("1.1.0", "1.0.0")
    assert journal.unfinished() is not None


@pytest.mark.parametrize("error", [KeyError("version"), KeyboardInterrupt()])
def test_whatever_ends_it_after_the_switch_it_goes_back(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with_versions(layout, "1.0.0", "1.1.0", current="1.1.0")
    back: list[str] = []

    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(module, "_answering", lambda _: "")
    monkeypatch.setattr(module, "_switch", fail)
    monkeypatch.setattr(module, "_take_back", lambda old: back.append(old.bundle.version))
    with pytest.raises(InstallerError, match="did not prove itself"):
        module.rollback(wanted(layout), Teller(quiet=True))
    assert back == ["1.1.0"]


def test_another_operation_has_to_be_ended_first(layout: Layout) -> None:
    Journal(layout.journal).begin("uninstall", {})
    with pytest.raises(Unfinished, match="uninstall"):
        settle(layout, Teller(quiet=True))


def test_without_an_installation_or_a_bundle_it_says_what_to_do(layout: Layout) -> None:
    with pytest.raises(NotInstalled):
        upgrade(wanted(layout), Teller(quiet=True))
    with_versions(layout, "1.0.0", current="1.0.0")
    with pytest.raises(InstallerError) as refused:
        upgrade(wanted(layout), Teller(quiet=True))
    assert "cic-installer upgrade BUNDLE" in refused.value.next_step


def test_a_failed_step_before_the_switch_changes_nothing(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_versions(layout, "1.0.0", current="1.0.0")
    monkeypatch.setattr(module, "_bundle", lambda _: Bundle(NOWHERE, "1.1.0"))
    monkeypatch.setattr(module, "_answering", lambda _: "")
    monkeypatch.setattr(module, "_back_up", lambda _: None)
    with pytest.raises(InstallerError, match=r"1\.1\.0 did not prove itself"):
        upgrade(wanted(layout), Teller(quiet=True))  # there is no tree to unpack
    assert str(layout.current.readlink()) == "1.0.0"
    assert Journal(layout.journal).unfinished() is None
    (entry,) = [json.loads(line) for line in layout.history.read_text().splitlines()]
    assert entry["outcome"] == "failed"
