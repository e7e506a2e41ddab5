"""What is refused before anything is changed, and what ends an upgrade from outside."""

import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from installer import upgrade as module
from installer.errors import UpgradeFailed
from installer.layout import Layout
from installer.terminal import Teller
from installer.upgrade import Wanted, upgrade
from tests.fakes.stand_in_bundle import OTHER_KEY, make_bundle, seal, snapshot
from tests.integration.installer.conftest import Installation

OWN = "var/lib/crosslogic-installer/"


def _whole(site: Installation) -> dict[str, str]:
    """Without the lock, which every run leaves."""
    return {name: kind for name, kind in snapshot(site.root).items() if name != OWN + "lock"}


def _flip(bundle: Path) -> Path:
    file = bundle / "tree/bin/cic"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    return bundle


def _added(bundle: Path) -> Path:
    (bundle / "tree/app/sitecustomize.py").write_text("print('mine')\n")
    return bundle


def _linked(bundle: Path) -> Path:
    (bundle / "tree/bin/more").symlink_to("/bin/sh")
    return bundle


def _resealed(bundle: Path) -> Path:
    seal(bundle, OTHER_KEY)  # with the key it brings: this site knows another one
    return bundle


def _cut(bundle: Path) -> Path:
    archive = _archive(bundle)
    archive.write_bytes(archive.read_bytes()[:-5000])
    return archive


def _escaping(bundle: Path) -> Path:
    archive = bundle.parent / "escaping.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(bundle / "install.sh", "../../../../etc/crosslogic/mine")
    return archive


def _archive(bundle: Path) -> Path:
    archive = bundle.with_name(bundle.name + ".tar.gz")
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(bundle, bundle.name)
    return archive


def test_what_is_not_genuine_changes_nothing(
    site: Installation, newer: Path, tmp_path: Path
) -> None:
    before = _whole(site)
    for number, spoil in enumerate((_flip, _added, _linked, _resealed, _cut, _escaping)):
        bundle = tmp_path / str(number) / newer.name
        shutil.copytree(newer, bundle)
        refused = site.installed("upgrade", str(spoil(bundle)), "--json")
        assert refused.code == 4, (spoil, refused)
        assert refused.json["error"]["code"] == "bundle_not_genuine"
        assert refused.json["error"]["next_step"]
        assert _whole(site) == before, spoil


def test_other_refusals_and_a_dry_run_change_nothing(
    site: Installation, newer: Path, tmp_path: Path
) -> None:
    before = _whole(site)
    for words, code, says in (
        (("upgrade",), "installer_error", "no bundle"),
        (("upgrade", str(tmp_path / "nowhere")), "installer_error", "is not there"),
        (("upgrade", str(site.bundle)), "other_version", "installed already"),
        (("upgrade", str(make_bundle(tmp_path, "0.0.9"))), "other_version", "older than"),
        (("upgrade", str(make_bundle(tmp_path, "1.0.0"))), "other_version", "major"),
        (("rollback",), "other_version", "No version before"),
        (("rollback", "--to", "0.0.1"), "other_version", "does not lead"),
        (("versions", "--remove", "0.1.0", "--yes"), "other_version", "in use"),
    ):
        refused = site.installed(*words, "--json")
        assert refused.code == 1, (words, refused)
        assert refused.json["error"]["code"] == code
        assert says in refused.json["error"]["message"], words
        assert refused.json["error"]["next_step"]
        assert _whole(site) == before, words
    shown = site.installed("upgrade", str(_archive(newer)), "--dry-run", "--json")
    assert [one["name"] for one in shown.json["steps"]] == [
        "backup", "tree", "try", "switch", "restart", "prove",
    ]  # fmt: skip
    assert all(one["bytes"] > 0 for one in shown.json["room"])
    assert _whole(site) == before


def test_too_little_room_is_told_with_figures(
    site: Installation, newer: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from installer import space  # noqa: PLC0415
    from installer.errors import NoRoom  # noqa: PLC0415

    before = _whole(site)
    small = space.Disk(1, space.SPARE + 3 * 10**6)
    monkeypatch.setattr(space.require_room, "__defaults__", (lambda _: small,))
    wanted = Wanted(Layout(site.root), tmp_path, bundle=str(newer), yes=True)
    with pytest.raises(NoRoom, match=r"70 MB free, and \d+ MB are needed .*version 0\.2\.0"):
        upgrade(wanted, Teller(quiet=True))
    assert _whole(site) == before


@pytest.fixture
def small_disk(site: Installation) -> Iterator[Callable[[int], Path]]:
    """/opt/crosslogic of the site on a file system of so many bytes."""
    folder = site.root / "opt/crosslogic"
    mounted = False

    def mount(size: int) -> Path:
        nonlocal mounted
        options = f"{'remount,' if mounted else ''}size={size}"
        kept = folder.with_name("kept")
        if not mounted:
            folder.rename(kept)
            folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode and not mounted:
            pytest.skip("no file system can be mounted here")
        assert done.returncode == 0, done
        if not mounted:
            shutil.copytree(kept, folder, symlinks=True, dirs_exist_ok=True)
        mounted = True
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
def test_a_disk_that_fills_up_keeps_the_old_version_and_gives_the_room_back(
    site: Installation,
    newer: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_disk: Callable[[int], Path],
    tmp_path: Path,
) -> None:
    folder = small_disk(10 * 10**6)
    monkeypatch.setattr(module, "require_room", lambda _: None)  # as if others filled it meanwhile
    wanted: dict[str, Any] = {"bundle": str(newer), "yes": True}
    with pytest.raises(UpgradeFailed, match="No space left on device"):
        upgrade(Wanted(Layout(site.root), tmp_path, **wanted), Teller(quiet=True))
    assert sorted(one.name for one in folder.iterdir()) == ["0.1.0", "current"]
    assert site.history[-1]["outcome"] == "failed"
    assert "tree: OSError" in site.history[-1]["why"]
    small_disk(150 * 10**6)
    again = site.installed("upgrade", str(newer))
    assert again.code == 0, again


def test_a_second_installer_waits_for_nothing_and_an_end_from_outside_is_taken_back(
    site: Installation, newer: Path
) -> None:
    program = site.root / "opt/crosslogic/current/bin/cic-installer"
    command = [str(program), "upgrade", str(newer), "--prefix", str(site.root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        assert any("[ 1/6]" in line for line in first.stderr)
        for words in (("upgrade", str(newer)), ("rollback",), ("versions", "--remove", "0.1.0")):
            second = site.installed(*words, "--json")
            assert second.code == 5, second
            assert str(first.pid) in second.json["error"]["message"]
        first.send_signal(signal.SIGHUP)  # a lost connection ends nothing
        time.sleep(0.2)
        assert first.poll() is None
        first.send_signal(signal.SIGTERM)
        said = first.stderr.read()
    assert first.returncode == 1
    assert "It was interrupted. Version 0.1.0 serves as before." in said
    assert site.current == "0.1.0"
    assert (site.history[-1]["outcome"], site.history[-1]["why"]) == (
        "failed", "backup: It was interrupted.",
    )  # fmt: skip
