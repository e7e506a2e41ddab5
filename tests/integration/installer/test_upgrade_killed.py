"""An upgrade is killed within any of its steps: the next run takes it back, and goes on with it.

A few points in the ordinary run; INSTALLER_KILLS=all tries more of every step.
"""

import os
import signal
from pathlib import Path

import pytest

from tests.fakes.stand_in_bundle import make_bundle, snapshot
from tests.integration.installer.conftest import Installation

EVERY = os.environ.get("INSTALLER_KILLS") == "all"
LATER = pytest.mark.skipif(not EVERY, reason="INSTALLER_KILLS=all tries every step")
AS_BEFORE = ("opt/crosslogic", "usr", "etc")


def _programs(site: Installation) -> dict[str, str]:
    """What is laid down; the folder of a version that was never used may stay for the next try."""
    return {
        name: kind
        for name, kind in snapshot(site.root).items()
        if name.startswith(AS_BEFORE) and not name.startswith("opt/crosslogic/0.2.0")
    }


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "point",
    [
        pytest.param("backup+1", marks=LATER),
        pytest.param("backup+4", marks=LATER),
        pytest.param("tree+1", marks=LATER),
        "tree+30",
        pytest.param("try+1", marks=LATER),
        pytest.param("try+5", marks=LATER),
        pytest.param("switch+1", marks=LATER),
        pytest.param("switch+4", marks=LATER),
        # The power cut between the renaming of `current` and the restart.
        pytest.param("restart+1", marks=LATER),
        pytest.param("prove+1", marks=LATER),
    ],
)
def test_the_same_again_takes_back_and_goes_on(
    site: Installation, newer: Path, tmp_path: Path, point: str
) -> None:
    killed = site.killed_at(point, tmp_path / "count", "upgrade", str(newer))
    assert killed.code == -signal.SIGKILL, killed
    again = site.installed("upgrade", "--json")  # with the bundle that was named before
    assert again.code == 0, again
    assert site.current == again.json["to"] == "0.2.0"
    step = point.partition("+")[0]
    assert [(one["outcome"], one.get("why", "")) for one in site.history[1:]] == [
        (
            "rolled back" if step in {"switch", "restart", "prove"} else "undone",
            f"cut short: {step}",
        ),
        ("finished", ""),
    ]
    assert site.manifest["version"] == "0.2.0"
    left = {path.name for path in site.records.iterdir()}
    assert not left & {"unpacked", "trial"}
    assert site.cic("ledger", "verify")


@pytest.mark.timeout(60)
def test_an_uninstall_needs_no_end_of_it(site: Installation, newer: Path, tmp_path: Path) -> None:
    assert site.killed_at("tree+30", tmp_path / "count", "upgrade", str(newer)).code < 0
    assert list((site.root / "opt/crosslogic").glob("*.partial"))
    done = site.installed("uninstall", "--purge")
    assert done.code == 0, done.err
    assert not (site.root / "opt/crosslogic").exists()
    assert not site.records.exists()


@pytest.mark.timeout(60)
def test_it_is_undone_after_the_rename_of_current_also_when_that_is_killed_too(
    site: Installation, newer: Path, tmp_path: Path
) -> None:
    before = _programs(site)
    assert site.killed_at("restart+1", tmp_path / "count", "upgrade", str(newer)).code < 0
    assert site.current == "0.2.0"
    for number in (3, 9):
        killed = site.killed_at(number, tmp_path / "count", "upgrade", "--undo")
        assert killed.code == -signal.SIGKILL, killed
    undone = site.installed("upgrade", "--undo", "--json")
    assert undone.code == 0, undone
    assert undone.json == {"undone": "upgrade", "version": "0.1.0"}
    assert _programs(site) == before
    assert site.history[-1]["outcome"] == "rolled back"
    assert site.installed("upgrade", "--undo", "--json").json["undone"] is None


@LATER
@pytest.mark.timeout(120)
def test_the_last_three_versions_stay_with_their_backups(
    site: Installation, tmp_path: Path
) -> None:
    for version in ("0.2.0rc2", "0.2.0rc10", "0.2.0"):
        done = site.installed("upgrade", str(make_bundle(tmp_path, version)), "--json")
        assert done.code == 0, done
    assert done.json["notes"] == ["Version 0.1.0 was removed: the last 3 are kept."]
    versions = site.installed("versions", "--json").json
    assert [(one["version"], one["current"], one["previous"]) for one in versions] == [
        ("0.2.0rc2", False, False), ("0.2.0rc10", False, True), ("0.2.0", True, False),
    ]  # fmt: skip
    backups = site.root / "var/lib/crosslogic/backups/upgrades"
    assert {one.name for one in backups.iterdir()} == {"0.2.0rc2", "0.2.0rc10"}
    assert not [name for name in site.manifest["made"] if "/0.1.0" in name]
    back = site.installed("rollback", "--to", "0.2.0rc2", "--json")
    assert back.code == 0, back
    assert site.current == "0.2.0rc2"
    removed = site.installed("versions", "--remove", "0.2.0", "--yes", "--json")
    assert removed.json["there"] == ["0.2.0rc2", "0.2.0rc10"]
    assert site.installed("uninstall", "--purge").code == 0
    assert not (site.root / "opt/crosslogic").exists()
