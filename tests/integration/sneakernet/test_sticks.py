"""Sticks that are file systems of their own: too small, write-protected, unmounted, pulled out.

They are mounted, which takes root's rights; without them the same failures are tested by what the
system calls say (tests/unit/sync/test_carrier.py).
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.sync.carrier import Carrier
from appliance.wire.command import ExitCode
from tests.fakes.command_line import Done, cic
from tests.fakes.sealed_site import SealedSite, sealed_site

BUNDLE = "factory-7-1-3.usage"


def root(*command: object) -> None:
    """A command of the administrator; skips the test where there is none."""
    try:
        subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"file systems cannot be mounted here: {error}")


class Stick:
    """A small file system, mounted on a folder; `image` is what a loop device reads."""

    def __init__(self, folder: Path) -> None:
        self.mounted = folder / "stick"
        self.mounted.mkdir()
        self.image = folder / "stick.img"

    def tmpfs(self, size: str) -> None:
        root("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", self.mounted)

    def ext4(self, size_bytes: int) -> None:
        with self.image.open("wb") as image:
            image.truncate(size_bytes)
        root("mkfs.ext4", "-q", "-F", self.image)
        root("mount", "-o", "loop", self.image, self.mounted)

    def unmount(self) -> None:
        root("umount", "-l", self.mounted)

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.mounted.iterdir() if path.name != "lost+found")


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Stick]:
    made = Stick(tmp_path)
    yield made
    while os.path.ismount(made.mounted):
        subprocess.run(["umount", "-l", str(made.mounted)], check=True, timeout=20)


@pytest.fixture
def site(tmp_path: Path) -> SealedSite:
    return sealed_site(tmp_path)


def export(site: SealedSite, stick: Stick) -> Done:
    return cic("--home", site.home.root, "--json", "bundle", "export", "--to", stick.mounted)


def test_a_stick_of_its_own_is_known_as_one(site: SealedSite, stick: Stick) -> None:
    stick.ext4(2_000_000)
    done = export(site, stick)
    assert (done.code, done.json["safe_to_unplug"], done.json["same_disk"]) == (0, True, False)
    stick.unmount()
    root("mount", "-o", "loop", stick.image, stick.mounted)  # in another machine
    found = cic("--home", site.home.root, "--json", "verify", stick.mounted / BUNDLE)
    assert found.json["ok"] is True


def test_a_stick_that_is_too_small_is_not_begun(site: SealedSite, stick: Stick) -> None:
    stick.tmpfs("16k")
    done = export(site, stick)
    assert (done.code, done.error["code"]) == (ExitCode.FAILED, "carrier_full")
    assert stick.names == []


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_stick_that_fills_up_meanwhile(
    site: SealedSite, stick: Stick, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "tmpfs":
        stick.tmpfs("256k")
    else:
        stick.ext4(600_000)
    real = Carrier.require_space

    def then_full(self: Carrier, wanted_bytes: int) -> None:
        real(self, wanted_bytes)
        with (stick.mounted / "photos").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4_096)):
                    pass
            except OSError:
                return

    monkeypatch.setattr(Carrier, "require_space", then_full)
    done = export(site, stick)
    assert (done.code, done.error["code"]) == (ExitCode.FAILED, "carrier_full")
    assert "Nothing is lost" in done.error["next_step"]
    assert stick.names == ["photos"]
    (stick.mounted / "photos").unlink()
    monkeypatch.setattr(Carrier, "require_space", real)
    assert export(site, stick).json["safe_to_unplug"] is True


def test_a_stick_with_write_protection(site: SealedSite, stick: Stick) -> None:
    stick.ext4(2_000_000)
    root("mount", "-o", "remount,ro", stick.mounted)
    done = export(site, stick)
    assert (done.code, done.error["code"]) == (ExitCode.CONFIGURATION, "carrier_unusable")
    assert "write protection" in done.error["next_step"]


def test_a_stick_that_is_unmounted_before_it_was_read_again(
    site: SealedSite, stick: Stick, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies under it is a folder of the local disk: it must not pass for the stick."""
    under = stick.mounted / BUNDLE
    assert export(site, stick).code == 0
    kept = under.read_bytes()
    stick.tmpfs("1m")
    real = Carrier._sync

    def then_gone(self: Carrier) -> None:
        real(self)
        stick.unmount()

    monkeypatch.setattr(Carrier, "_sync", then_gone)
    done = export(site, stick)
    assert done.error["code"] == "carrier_lost"
    assert "unmounted" in done.error["message"]
    assert under.read_bytes() == kept


def test_a_stick_that_is_pulled_out_before_it_was_read_again(
    site: SealedSite, stick: Stick, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device behind the file system is gone: what memory still holds must not count."""
    stick.ext4(4_000_000)
    real = Carrier._sync

    def then_gone(self: Carrier) -> None:
        real(self)
        stick.image.write_bytes(b"")  # the loop device now fails on every block

    monkeypatch.setattr(Carrier, "_sync", then_gone)
    done = export(site, stick)
    assert done.code != 0
    assert done.error["code"] in {"carrier_lost", "carrier_unreliable"}
    assert "safe_to_unplug" not in done.out


def test_a_stick_that_is_pulled_out_before_it_is_read(
    site: SealedSite, stick: Stick, tmp_path: Path
) -> None:
    stick.ext4(4_000_000)
    assert export(site, stick).code == 0
    shutil.copy(stick.mounted / BUNDLE, tmp_path / "copy")
    with (stick.mounted / BUNDLE).open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    stick.image.write_bytes(b"")
    done = cic("--home", site.home.root, "--json", "verify", stick.mounted / BUNDLE)
    assert done.code != 0
    assert cic("--home", site.home.root, "--json", "verify", tmp_path / "copy").code == 0
