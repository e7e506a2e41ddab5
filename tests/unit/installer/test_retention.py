"""Which versions stay, and what keeps one that would go."""

import shutil
import subprocess
from pathlib import Path

import pytest

from installer.errors import OtherVersion
from installer.layout import Layout
from installer.records import Made, Manifest
from installer.retention import backups_folder, remove_by_hand, retire, surplus, users_of
from installer.versions import installed, show_history, show_versions


@pytest.mark.parametrize(
    ("there", "current", "previous", "goes"),
    [
        (["1.0", "1.1"], "1.1", "1.0", []),
        (["1.0", "1.1", "1.2", "1.3"], "1.3", "1.2", ["1.0"]),
        # From the oldest to the newest: what was left stays, however old it is.
        (["1.0", "1.1", "1.2", "1.3"], "1.3", "1.0", ["1.1"]),
        (["1.0", "1.1", "1.2", "1.3", "1.4"], "1.3", "1.2", ["1.0", "1.1"]),
        (["1.9", "1.10", "1.11", "1.12"], "1.12", "1.11", ["1.9"]),
        # The one before was removed: it takes no place.
        (["1.0", "1.1", "1.3"], "1.3", "1.2", []),
    ],
)
def test_the_last_three_stay(
    there: list[str], current: str, previous: str, goes: list[str]
) -> None:
    assert surplus(there, current, previous) == goes


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    made.records.mkdir(parents=True)
    manifest = Manifest(made)
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        made.version(version).mkdir(parents=True)
        (made.version(version) / "file").write_text(version)
        manifest.note(made.version(version), Made("tree", target=version))
        manifest.note(made.version(version) / "own.pth", Made("file"))
        (backups_folder(made) / version).mkdir(parents=True)
    made.current.symlink_to("1.2.0")
    return made


def test_a_version_goes_with_its_backup_and_its_lines(layout: Layout) -> None:
    assert retire(layout, Manifest(layout), ["1.0.0"]) == []
    assert installed(layout) == ["1.1.0", "1.2.0"]
    assert sorted(one.name for one in backups_folder(layout).iterdir()) == ["1.1.0", "1.2.0"]
    assert not [name for name in Manifest(layout).made if "/1.0.0" in name]
    assert not layout.version("1.0.0").exists()


def test_one_that_a_process_runs_from_stays(layout: Layout) -> None:
    program = layout.version("1.0.0") / "sleep"
    shutil.copy(Path("/bin/sleep").resolve(), program)
    with subprocess.Popen([program, "60"]) as process:
        try:
            assert users_of(layout.version("1.0.0")) == [process.pid]
            (note,) = retire(layout, Manifest(layout), ["1.0.0"])
            assert f"process {process.pid}" in note
            with pytest.raises(OtherVersion, match="still runs from version"):
                remove_by_hand(layout, "1.0.0", by="me", yes=True, as_json=False)
        finally:
            process.terminate()
    assert "1.0.0" in installed(layout)


def test_one_with_changes_stays_until_it_is_removed_by_hand(layout: Layout) -> None:
    manifest = Manifest(layout)
    manifest.trees["1.0.0"] = {"file": ("0" * 64, "0644")}
    manifest.save()
    (note,) = retire(layout, manifest, ["1.0.0"])
    assert "file was changed" in note
    assert "removed" in remove_by_hand(layout, "1.0.0", by="me", yes=True, as_json=False)
    assert installed(layout) == ["1.1.0", "1.2.0"]
    assert "remove     1.0.0" in show_history(layout, as_json=False)


@pytest.mark.parametrize(
    ("version", "says"),
    [("1.2.0", "in use"), ("3.0", "not here"), ("../x", "not here"), ("current", "not here")],
)
def test_current_and_what_is_none_are_refused(layout: Layout, version: str, says: str) -> None:
    with pytest.raises(OtherVersion, match=says):
        remove_by_hand(layout, version, by="me", yes=True, as_json=True)


def test_what_a_power_cut_leaves_of_a_removal_is_no_version(layout: Layout) -> None:
    layout.version("1.0.0").rename(layout.versions / "1.0.0.partial")
    assert installed(layout) == ["1.1.0", "1.2.0"]
    retire(layout, Manifest(layout), ["1.0.0"])
    assert not (layout.versions / "1.0.0.partial").exists()


def test_versions_tell_what_rollback_goes_to(layout: Layout) -> None:
    lines = show_versions(layout, as_json=False).splitlines()
    assert [line.split()[-1] for line in lines] == ["MB", "it", "use"]
    assert lines[2].startswith("* 1.2.0")
