"""Bundles written to a stick and read from one: whole, or an error that says what to do."""

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest

from appliance.manifests.bundle import (
    CarriedDocument,
    CarriedManifest,
    KeyChain,
    UsageReader,
    write_receipts,
    write_usage,
)
from appliance.manifests.errors import BadBundle, BadManifest
from appliance.sync.bundles import Facts, Part, UsageExport, opened, read_brought, usage_name
from appliance.sync.carrier import Carrier
from appliance.sync.errors import (
    BundleExists,
    BundleUnreadable,
    CarrierFull,
    CarrierUnreliable,
    DocumentRefused,
)

APPLIANCE = "apl_0123456789abcdef01234567"
KEYS = KeyChain(first_key_pem="-")


def manifests(count: int) -> list[CarriedManifest]:
    return [CarriedManifest(1, n, b"e%d" % n * 50, b"l%d" % n * 300) for n in range(1, count + 1)]


@dataclass
class Desk:
    """A site's manifests, and a folder that they are carried in."""

    folder: Path
    manifests: list[CarriedManifest] = field(default_factory=lambda: manifests(9))
    bytes_max: int = 10_000_000
    checked: list[int] = field(default_factory=list)
    told: list[tuple[str, int, int]] = field(default_factory=list)

    def export(self) -> list[Part]:
        usage = UsageExport(
            Facts(APPLIANCE, "Werk Süd/7", KEYS, b"checkpoint"),
            lambda: iter(self.manifests),
            self.check,
            lambda *words: self.told.append(words),
            bytes_max=self.bytes_max,
        )
        with Carrier.open(self.folder) as carrier:
            return usage.to(carrier)

    def check(self, reader: UsageReader, tell: Callable[[int], None]) -> None:
        for count, manifest in enumerate(reader, 1):
            self.checked.append(manifest.seq)
            tell(count)

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    folder = tmp_path / "stick"
    folder.mkdir()
    return Desk(folder)


def test_all_is_written_and_read_again(desk: Desk) -> None:
    (part,) = desk.export()
    assert desk.names == ["werk-s-d-7-1-9.usage"] == [part.path.name]
    assert (part.first, part.last, part.manifests) == ((1, 1), (1, 9), 9)
    assert part.size_bytes == part.path.stat().st_size
    assert desk.checked == list(range(1, 10))
    with part.path.open("rb") as file:
        assert list(UsageReader(file)) == desk.manifests
    doings = dict.fromkeys(doing for doing, _, _ in desk.told)
    assert list(doings) == ["Reading", "Writing", "Checking"]
    assert desk.told[-1] == ("Checking", 9, 9)


def test_what_is_too_much_for_one_file_is_split(desk: Desk) -> None:
    desk.bytes_max = 30_000
    parts = desk.export()
    assert len(parts) > 1
    assert all(part.size_bytes <= desk.bytes_max for part in parts)
    assert desk.names == sorted(
        f"werk-s-d-7-{part.first[1]}-{part.last[1]}.usage" for part in parts
    )
    read = []
    for part in parts:
        with part.path.open("rb") as file:
            read += list(UsageReader(file))
    assert read == desk.manifests
    assert desk.checked == list(range(1, 10))
    assert [done for doing, done, _ in desk.told if doing == "Writing"] == list(range(1, 10))


def test_nothing_to_carry_writes_nothing(desk: Desk) -> None:
    desk.manifests = []
    assert desk.export() == []
    assert desk.names == []


def test_the_same_again_is_recognised_and_checked(desk: Desk) -> None:
    desk.bytes_max = 30_000
    parts = desk.export()
    before = {part.path: part.path.stat().st_mtime_ns for part in parts}
    parts[1].path.unlink()
    assert desk.export() == parts  # as after a stick that was pulled out between two files
    for part in (parts[0], *parts[2:]):
        assert part.path.stat().st_mtime_ns == before[part.path]
    assert desk.checked == list(range(1, 10)) * 2


@pytest.mark.parametrize("kind", ["other", "torn", "empty", "folder", "link"])
def test_what_lies_there_is_not_overwritten(desk: Desk, tmp_path: Path, kind: str) -> None:
    (part,) = desk.export()
    if kind in {"other", "torn", "empty"}:
        content = part.path.read_bytes()
        other, _ = write_usage(APPLIANCE, "n", KEYS, b"", desk.manifests[:1])
        part.path.write_bytes({"other": other, "torn": content[:300], "empty": b""}[kind])
    else:
        part.path.rename(tmp_path / "away")
        if kind == "folder":
            part.path.mkdir()
        else:
            part.path.symlink_to(tmp_path / "away")
    before = (tmp_path / "away" if kind == "link" else part.path).lstat()
    with pytest.raises(BundleExists, match="Nothing was overwritten") as refused:
        desk.export()
    assert part.path.name in refused.value.message
    assert (tmp_path / "away" if kind == "link" else part.path).lstat() == before


def test_a_stick_without_room_is_refused_before_it_is_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(descriptor: int) -> os.statvfs_result:
        real = list(os.statvfs("/"))
        real[4] = 2  # blocks that are free for us
        return os.statvfs_result(real)

    monkeypatch.setattr(os, "fstatvfs", small)
    with pytest.raises(CarrierFull):
        desk.export()
    assert desk.names == []


@pytest.mark.parametrize("at", [0, 700, 5_000, -1])
def test_a_stick_that_gives_back_something_else_is_not_used(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    real = Carrier.reading

    @contextmanager
    def worn(self: Carrier, name: str) -> Iterator[BinaryIO]:
        path = desk.folder / name
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)
        with real(self, name) as file:
            yield file

    monkeypatch.setattr(Carrier, "reading", worn)
    with pytest.raises(CarrierUnreliable, match="does not give back") as refused:
        desk.export()
    assert "another" in refused.value.next_step
    assert desk.names == []


def test_an_older_copy_in_its_place_is_found(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worn stick may give back what once was there: sound in itself, and not what was written."""
    older, _ = write_usage(APPLIANCE, "n", KEYS, b"", desk.manifests[:1])
    real = Carrier.reading

    @contextmanager
    def worn(self: Carrier, name: str) -> Iterator[BinaryIO]:
        (desk.folder / name).write_bytes(older)
        with real(self, name) as file:
            yield file

    monkeypatch.setattr(Carrier, "reading", worn)
    with pytest.raises(CarrierUnreliable, match="another"):
        desk.export()
    assert desk.names == []


def test_a_defect_of_the_site_is_not_blamed_on_the_stick(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(_reader: UsageReader, _tell: object) -> None:
        raise BadManifest("Manifest 1-3 is not right: SIG_INVALID: a bit is wrong.")

    monkeypatch.setattr(desk, "check", defect)
    with pytest.raises(BadManifest, match="1-3"):
        desk.export()


@pytest.mark.parametrize(
    ("site", "first", "last", "name"),
    [
        ("North", (1, 1), (1, 9), "north-1-9.usage"),
        ("North", (1, 9), (2, 3), "north-9-2.3.usage"),
        ("../../etc", (1, 1), (1, 1), "etc-1-1.usage"),
        ("工厂", (1, 1), (1, 1), "site-1-1.usage"),
        ("", (1, 1), (1, 1), "site-1-1.usage"),
        ("a" * 200, (1, 1), (1, 1), f"{'a' * 40}-1-1.usage"),
        ("CON:\\x", (1, 1), (1, 1), "con-x-1-1.usage"),
        (".hidden", (1, 1), (1, 1), "hidden-1-1.usage"),
    ],
)
def test_names_fit_any_file_system(
    site: str, first: tuple[int, int], last: tuple[int, int], name: str
) -> None:
    assert usage_name(site, first, last) == name


# -- What comes back


RECEIPT = b'{"payload":"r"}'


def test_a_receipt_bundle_and_a_single_document_are_read(tmp_path: Path) -> None:
    bundle, single = tmp_path / "a.receipt", tmp_path / "a.json"
    bundle.write_bytes(write_receipts(APPLIANCE, [CarriedDocument("receipt", RECEIPT)]))
    single.write_bytes(RECEIPT + b"\n")
    assert read_brought(bundle).appliance_id == APPLIANCE
    assert list(read_brought(bundle).envelopes) == [RECEIPT]
    assert list(read_brought(single).envelopes) == [RECEIPT]
    assert read_brought(single).appliance_id == ""


def test_usage_is_not_for_a_site(tmp_path: Path) -> None:
    path = tmp_path / "a.usage"
    path.write_bytes(write_usage(APPLIANCE, "n", KEYS, b"", manifests(1))[0])
    with pytest.raises(DocumentRefused, match="goes to the control plane") as refused:
        read_brought(path)
    assert "cic verify" in refused.value.next_step


def _tar(name: str, content: bytes = b"") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as target:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        target.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"PK\x03\x04",
        b"\x1f\x8b" + bytes(100),
        bytes(2_048),
        _tar("../index.json"),
        _tar("index.json", b"{}"),
        _tar("index.json", b'{"format":"crosslogic.usage-bundle.v9"}'),
        b"index.json\0",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.receipt"
    path.write_bytes(content)
    with pytest.raises(BadBundle) as refused:
        read_brought(path)
    assert refused.value.message


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    for name in ("missing", "pipe", "link", ".", "missing/under"):
        with pytest.raises(BundleUnreadable) as refused:
            read_brought(tmp_path / name)
        assert refused.value.next_step
    with pytest.raises(BundleUnreadable):
        read_brought(Path("/dev/zero"))


def test_a_stick_that_goes_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(RECEIPT)

    def gone() -> None:
        with opened(tmp_path / "a"):
            raise OSError(5, "Input/output error")

    with pytest.raises(BundleUnreadable, match="Input/output error"):
        gone()
