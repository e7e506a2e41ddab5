"""A stick that is not there, full, failing, or gone: each is said, and nothing half stays on it."""

import errno
import os
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.sync.carrier import Carrier
from appliance.sync.errors import BundleExists, CarrierFull, CarrierLost, CarrierUnusable, SyncError

NAME = "north-1-9.usage"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "stick"
    made.mkdir()
    return made


@pytest.fixture
def carrier(folder: Path) -> Iterator[Carrier]:
    with Carrier.open(folder) as opened:
        yield opened


def write(carrier: Carrier, content: bytes = b"content", name: str = NAME) -> None:
    with carrier.writing(name) as file:
        file.write(content)


def test_what_is_written_is_there_whole(carrier: Carrier, folder: Path) -> None:
    write(carrier)
    assert [path.name for path in folder.iterdir()] == [NAME]
    assert (folder / NAME).read_bytes() == b"content"
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o600
    with carrier.reading(NAME) as file:
        assert file.read() == b"content"
    assert carrier.holds(NAME)
    carrier.discard(NAME)
    assert not carrier.holds(NAME)


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    for name, said in (
        ("missing", "no folder"),
        ("file", "is no folder"),
        ("link", "is a link"),
        ("nowhere", "is a link"),
    ):
        with pytest.raises(CarrierUnusable, match=said) as refused:
            Carrier.open(tmp_path / name)
        assert refused.value.next_step
    with pytest.raises(SyncError):
        Carrier.open(tmp_path / "file" / "under")


def test_what_fails_within_leaves_nothing(carrier: Carrier, folder: Path) -> None:
    def interrupted() -> None:
        with carrier.writing(NAME) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(folder.iterdir()) == []


def test_the_leavings_of_a_killed_export_are_replaced(
    carrier: Carrier, folder: Path, tmp_path: Path
) -> None:
    (folder / f".{NAME}.part").write_bytes(b"x" * 1_000)
    write(carrier)
    assert [path.name for path in folder.iterdir()] == [NAME]
    # A link of that name is not followed.
    (tmp_path / "precious").write_text("precious")
    (folder / f".{NAME}.part").symlink_to(tmp_path / "precious")
    write(carrier)
    assert (tmp_path / "precious").read_text() == "precious"
    assert (folder / NAME).read_bytes() == b"content"


def test_leavings_are_swept_but_not_what_is_at_work(carrier: Carrier, folder: Path) -> None:
    for name in (".north-1-3.usage.part", ".south-1-3.usage.part", "north-1-2.usage", ".north-x"):
        (folder / name).write_bytes(b"x")
    carrier.sweep("north-")
    assert sorted(path.name for path in folder.iterdir()) == [
        ".north-x",
        ".south-1-3.usage.part",
        "north-1-2.usage",
    ]
    with carrier.writing("north-1-5.usage") as file:
        for other in (
            lambda: carrier.sweep("north-"),
            lambda: write(carrier, name="north-1-5.usage"),
        ):
            with pytest.raises(BundleExists, match="Another export"):
                other()
        file.write(b"content")
    assert (folder / "north-1-5.usage").read_bytes() == b"content"


def test_a_stick_that_takes_no_large_file(carrier: Carrier, folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CarrierFull, match="too large") as refused:
            write(carrier, bytes(300_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Nothing is lost" in refused.value.next_step
    assert list(folder.iterdir()) == []


def failing(code: int, real: Callable[..., Any], when: int = 1) -> Callable[..., Any]:
    """A system call that fails with `code` the `when`-th time."""
    calls = iter(range(1, 1_000))

    def call(*args: Any, **more: Any) -> Any:
        if next(calls) == when:
            raise OSError(code, os.strerror(code))
        return real(*args, **more)

    return call


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, CarrierFull),
        (errno.EDQUOT, CarrierFull),
        (errno.EFBIG, CarrierFull),
        (errno.EIO, CarrierLost),
        (errno.ENODEV, CarrierLost),
        (errno.ESTALE, CarrierLost),
        (errno.EROFS, CarrierUnusable),
        (errno.EACCES, CarrierUnusable),
    ],
)
@pytest.mark.parametrize(
    ("call", "when"), [("open", 1), ("fsync", 1), ("fsync", 2), ("rename", 1)], ids=str
)
def test_each_step_may_fail(
    carrier: Carrier,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    error: type[SyncError],
    call: str,
    when: int,
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(os, call, failing(code, getattr(os, call), when))
        with pytest.raises(error) as refused:
            write(carrier)
    assert str(folder) in refused.value.message
    assert refused.value.next_step
    assert list(folder.iterdir()) == []
    write(carrier)  # and the next attempt is as good as the first


def test_a_folder_that_cannot_be_synced_alone_is_synced_with_all(
    carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL, os.fsync, 2))
    monkeypatch.setattr(os, "sync", lambda: synced.append(1))
    write(carrier)
    assert synced == [1]


def test_a_stick_that_goes_in_the_midst(carrier: Carrier, folder: Path) -> None:
    def pulled_out() -> None:
        with carrier.writing(NAME) as file:
            file.write(b"half")
            shutil.rmtree(folder)

    with pytest.raises(CarrierLost, match="taken out"):
        pulled_out()
    assert not folder.exists()


def test_another_folder_in_its_place_is_found(carrier: Carrier, folder: Path) -> None:
    """As when the stick was unmounted and what lies under it shows: a folder of the local disk."""
    write(carrier)
    folder.rename(folder.with_name("away"))
    folder.mkdir()
    (folder / NAME).write_bytes(b"content")
    with pytest.raises(CarrierLost, match="unmounted"), carrier.reading(NAME):
        pass
    shutil.rmtree(folder)
    with pytest.raises(CarrierLost), carrier.reading(NAME):
        pass


def test_only_plain_files_are_read(carrier: Carrier, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "folder").mkdir()
    for name in ("link", "folder", "missing"):
        with pytest.raises(SyncError), carrier.reading(name):
            pass
    assert carrier.holds("link")
    assert carrier.holds("folder")


def test_room_is_looked_at_before(carrier: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    carrier.require_space(1)
    with pytest.raises(CarrierFull, match="MiB free") as refused:
        carrier.require_space(2**62)
    assert "--from" in refused.value.next_step
    monkeypatch.setattr(os, "fstatvfs", failing(errno.EIO, os.fstatvfs))
    with pytest.raises(CarrierLost):
        carrier.require_space(1)


def test_a_folder_of_the_sites_own_disk_is_known(carrier: Carrier, tmp_path: Path) -> None:
    assert carrier.is_on_disk_of(tmp_path)
    assert not carrier.is_on_disk_of(Path("/proc"))
    assert not carrier.is_on_disk_of(tmp_path / "missing")
