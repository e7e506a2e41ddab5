"""Containers: the same bytes again, no bit of them otherwise, and nothing that is none of ours."""

import gzip
import io
import os
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from appliance.manifests import bundle as bundle_module
from appliance.manifests.bundle import (
    LINES_BYTES_MAX,
    USAGE_FORMAT,
    CarriedDocument,
    CarriedManifest,
    KeyChain,
    UsageIndex,
    UsageReader,
    UsageWriter,
    read_receipts,
    write_receipts,
    write_usage,
)
from appliance.manifests.container import (
    BLOCK_BYTES,
    Member,
    Sums,
    container_format,
    span,
    write_container,
)
from appliance.manifests.errors import BadBundle, BundleTooLarge

APPLIANCE = "apl_0123456789abcdef01234567"
KEYS = KeyChain(first_key_pem="-----BEGIN PUBLIC KEY-----\n", rotations=("{}",))
KEYS_RAW = b'{"first_key_pem":"p","rotations":[],"grants":[]}'
CHECKPOINT = b"log\n3\nAAAA\n\n- log AAAA\n"
MANIFESTS = (
    CarriedManifest(1, 9, b'{"payload":"a"}', b'{"line":1}\n{"line":2}\n'),
    CarriedManifest(1, 10, b'{"payload":"b"}', b""),
    CarriedManifest(2, 1, b'{"payload":"c"}', b"x" * 512),
)
DOCUMENTS = (
    CarriedDocument("receipt", b'{"payload":"r"}'),
    CarriedDocument("key-revocation", b'{"payload":"v"}'),
)


def usage(*manifests: CarriedManifest) -> bytes:
    raw, count = write_usage(APPLIANCE, "north", KEYS, CHECKPOINT, manifests or MANIFESTS)
    assert count == len(manifests or MANIFESTS)
    return raw


def read_usage(raw: bytes) -> list[CarriedManifest]:
    return list(UsageReader(io.BytesIO(raw)))


def test_what_was_written_is_read() -> None:
    reader = UsageReader(io.BytesIO(usage()))
    assert (reader.index.appliance_id, reader.index.site) == (APPLIANCE, "north")
    assert (reader.index.epoch_from, reader.index.seq_from) == (1, 9)
    assert (reader.index.epoch_to, reader.index.seq_to) == (2, 1)
    assert reader.index.manifests == 3
    assert (reader.keys, reader.checkpoint) == (KEYS, CHECKPOINT)
    assert tuple(reader) == MANIFESTS
    assert read_receipts(write_receipts(APPLIANCE, DOCUMENTS)) == (APPLIANCE, DOCUMENTS)
    assert read_receipts(write_receipts(APPLIANCE, ())).documents == ()


def test_the_same_manifests_give_the_same_bytes() -> None:
    assert usage() == usage()
    assert write_receipts(APPLIANCE, DOCUMENTS) == write_receipts(APPLIANCE, DOCUMENTS)


def test_tar_and_sha256sum_understand_it(tmp_path: Path) -> None:
    (tmp_path / "a.usage").write_bytes(usage())
    subprocess.run(["tar", "xf", "a.usage"], cwd=tmp_path, check=True, timeout=10)
    subprocess.run(
        ["sha256sum", "-c", "--strict", "sha256sums"],
        cwd=tmp_path,
        check=True,
        timeout=10,
        stdout=subprocess.DEVNULL,
    )
    assert (tmp_path / "m/1-9.ndjson").read_bytes() == MANIFESTS[0].lines


def test_headers_are_those_that_the_library_writes() -> None:
    raw = usage()
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as archive:
        for info in archive:
            assert info.tobuf(tarfile.USTAR_FORMAT) == raw[info.offset : info.offset + 512]
            assert (info.mode, info.uid, info.gid, info.mtime) == (0o444, 0, 0, 0)
            assert (info.uname, info.gname) == ("", "")


# Small, because every bit of them is turned.
SMALL_USAGE = usage(CarriedManifest(1, 9, b'{"p":"a"}', b'{"line":1}\n'))
SMALL_RECEIPT = write_receipts(APPLIANCE, DOCUMENTS[:1])


@pytest.mark.parametrize(
    ("raw", "read"),
    [(SMALL_USAGE, read_usage), (SMALL_RECEIPT, read_receipts)],
    ids=["usage", "receipt"],
)
def test_no_single_bit_may_change(raw: bytes, read: Callable[[bytes], object]) -> None:
    read(raw)
    changed, passed = bytearray(raw), []
    for bit in range(len(raw) * 8):
        changed[bit // 8] ^= 1 << bit % 8
        try:
            read(bytes(changed))
        except BadBundle:
            pass
        else:
            passed.append(bit)
        changed[bit // 8] ^= 1 << bit % 8
    assert passed == []


@pytest.mark.parametrize(
    ("raw", "read"),
    [(SMALL_USAGE, read_usage), (SMALL_RECEIPT, read_receipts)],
    ids=["usage", "receipt"],
)
def test_no_byte_may_be_missing_or_more(raw: bytes, read: Callable[[bytes], object]) -> None:
    for end in range(len(raw)):
        with pytest.raises(BadBundle):
            read(raw[:end])
    for more in (b"\0", b"x", bytes(512), bytes(10_240), raw):
        with pytest.raises(BadBundle):
            read(raw + more)


def forged(members: Iterable[tuple[str, bytes]], /, **changes: object) -> bytes:
    """A container whose hashes are right, as somebody would make it who means harm."""
    sums, listed = Sums(), [Member(*one) for one in members]
    for one in listed:
        sums.add(one)
    fields = {
        "site": "north",
        "epoch_from": 1,
        "seq_from": 9,
        "epoch_to": 1,
        "seq_to": 9,
        "manifests": 1,
        **sums.told(),
        **changes,
    }
    index = UsageIndex(format=USAGE_FORMAT, appliance_id=APPLIANCE, **fields)  # type: ignore[arg-type]  # fields of the index
    file = io.BytesIO()
    for _ in write_container(file, index.checked(), sums, listed):
        pass
    return file.getvalue()


FRONT = (("keys.json", KEYS_RAW), ("checkpoint", b""))
ONE = (("m/1-9.dsse.json", b"{}"), ("m/1-9.ndjson", b""))


def test_the_forger_forges_well() -> None:
    assert read_usage(forged([*FRONT, *ONE])) == [(1, 9, b"{}", b"")]


@pytest.mark.parametrize(
    "name",
    [
        "../m/1-9.ndjson",
        "/etc/passwd",
        "m/../../x",
        "m/1-9.ndjson/..",
        "m\\1-9.ndjson",
        "m/1-9.NDJSON",
        "m/01-9.ndjson",
        "m/1-0.ndjson",
        "m/-1-9.ndjson",
        "m/1-9.ndjson\n",
        "./m/1-9.ndjson",
        "m/",
        "d/1-receipt.dsse.json",
        "m/1-9999999999999999.ndjson",
        "M/1-9.ndjson",
    ],
)
def test_only_allowed_names_are_taken(name: str) -> None:
    with pytest.raises(BadBundle):
        read_usage(forged([*FRONT, ONE[0], (name, b"")]))


@pytest.mark.parametrize(
    "members",
    [
        [FRONT[1], FRONT[0], *ONE],
        [FRONT[0], *ONE],
        [*FRONT, ONE[1], ONE[0]],
        [*FRONT, ONE[0]],
        [*FRONT, *ONE, *ONE],
        [*FRONT, *ONE, ("m/1-8.dsse.json", b"{}"), ("m/1-8.ndjson", b"")],
        [*FRONT, *ONE, ("m/1-10.dsse.json", b"{}"), ("m/1-10.ndjson", b"")],
        [*FRONT, ONE[0], ("m/1-10.ndjson", b"")],
        [*FRONT, *ONE, FRONT[1]],
        [*FRONT],
        [],
    ],
    ids=lambda members: "+".join(name for name, _ in members) or "nothing",
)
def test_the_order_of_members_is_fixed(members: list[tuple[str, bytes]]) -> None:
    with pytest.raises(BadBundle):
        read_usage(forged(members))


@pytest.mark.parametrize(
    "changes",
    [
        {"manifests": 2},
        {"manifests": -1},
        {"seq_from": 8},
        {"seq_to": 10},
        {"epoch_to": 2},
        {"members": 5},
        {"body_bytes": 0},
        {"sums_bytes": 10**12},
        {"sums_bytes": -1},
        {"sums_sha256": "0" * 64},
    ],
    ids=str,
)
def test_an_index_that_lies_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BadBundle):
        read_usage(forged([*FRONT, *ONE], **changes))


@pytest.mark.parametrize("keys", [b"", b"{}", b'{"first_key_pem":1}', b"\xff", b"[]"])
def test_a_chain_of_keys_that_is_none_is_refused(keys: bytes) -> None:
    with pytest.raises(BadBundle, match=r"keys\.json"):
        UsageReader(io.BytesIO(forged([("keys.json", keys), FRONT[1], *ONE])))


def retold(change: Callable[[tarfile.TarInfo], None], tar_format: int) -> bytes:
    """The bundle as another tar program might write it, one header changed."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(SMALL_USAGE), mode="r:") as source,
        tarfile.open(fileobj=out, mode="w", format=tar_format) as target,
    ):
        for number, info in enumerate(source):
            content = source.extractfile(info)
            assert content is not None
            if number == 4:
                change(info)
            target.addfile(info, content if info.isreg() else None)
    return out.getvalue()


def _set(**fields: object) -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        for name, value in fields.items():
            setattr(info, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "tar_format"),
    [
        (_set(), tarfile.USTAR_FORMAT),  # padded to a record of 10,240 bytes
        (_set(type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0), tarfile.USTAR_FORMAT),
        (_set(type=tarfile.LNKTYPE, linkname="index.json", size=0), tarfile.USTAR_FORMAT),
        (_set(type=tarfile.CHRTYPE, devmajor=1, devminor=3, size=0), tarfile.USTAR_FORMAT),
        (_set(type=tarfile.BLKTYPE, devmajor=8, size=0), tarfile.USTAR_FORMAT),
        (_set(type=tarfile.FIFOTYPE, size=0), tarfile.USTAR_FORMAT),
        (_set(type=tarfile.DIRTYPE, size=0), tarfile.USTAR_FORMAT),
        (_set(type=tarfile.CONTTYPE), tarfile.USTAR_FORMAT),
        (_set(type=tarfile.AREGTYPE), tarfile.USTAR_FORMAT),
        (_set(type=tarfile.GNUTYPE_SPARSE), tarfile.GNU_FORMAT),
        (_set(mtime=1), tarfile.USTAR_FORMAT),
        (_set(mode=0o4755), tarfile.USTAR_FORMAT),
        (_set(uid=1000), tarfile.USTAR_FORMAT),
        (_set(uname="root"), tarfile.USTAR_FORMAT),
        (_set(), tarfile.GNU_FORMAT),
        (_set(pax_headers={"comment": "hello"}), tarfile.PAX_FORMAT),
        (_set(pax_headers={"size": "1"}), tarfile.PAX_FORMAT),
        (_set(name="m/" + "x" * 200), tarfile.PAX_FORMAT),
        (_set(name="m/" + "x" * 200), tarfile.GNU_FORMAT),
    ],
)
def test_other_kinds_of_tar_are_refused(
    change: Callable[[tarfile.TarInfo], None], tar_format: int
) -> None:
    with pytest.raises(BadBundle) as refused:
        read_usage(retold(change, tar_format))
    assert refused.value.next_step


def test_a_compressed_one_is_refused_by_name() -> None:
    for read in (read_usage, lambda raw: container_format(io.BytesIO(raw))):
        with pytest.raises(BadBundle, match="compressed"):
            read(gzip.compress(SMALL_USAGE))


def test_a_huge_member_is_refused_before_it_is_read() -> None:
    class Endless(io.RawIOBase):
        """As much as is asked for: whoever believes the header never comes back."""

        def __init__(self, begin: bytes) -> None:
            self.rest, self.given = begin, 0

        def read(self, size: int = -1) -> bytes:
            assert 0 <= size <= BLOCK_BYTES * 8, "it read what the header claimed"
            piece, self.rest = self.rest[:size], self.rest[size:]
            return piece or bytes(size)

    info = tarfile.TarInfo("index.json")
    info.mode, info.size = 0o444, 8**11 - 1
    with pytest.raises(BundleTooLarge, match=r"index\.json"):
        UsageReader(Endless(info.tobuf(tarfile.USTAR_FORMAT)))  # type: ignore[arg-type]  # what is used of a file


def test_what_no_reader_would_take_is_not_written() -> None:
    writer = UsageWriter(APPLIANCE, "north", KEYS)
    writer.add(MANIFESTS[1])
    for manifest in (MANIFESTS[0], MANIFESTS[1], CarriedManifest(0, 1, b"", b"")):
        with pytest.raises(BadBundle):
            writer.add(manifest)
    with pytest.raises(BundleTooLarge):
        writer.add(CarriedManifest(3, 1, b"", bytes(LINES_BYTES_MAX + 1)))
    with pytest.raises(BadBundle):
        list(UsageWriter(APPLIANCE, "north", KEYS).write(io.BytesIO(), b"", ()))
    with pytest.raises(BadBundle):
        write_receipts(APPLIANCE, [CarriedDocument("../receipt", b"{}")])


def test_manifests_that_change_between_the_passes_are_found() -> None:
    for other in ((), (MANIFESTS[0],), (MANIFESTS[0], MANIFESTS[1]._replace(lines=b"z"))):
        writer = UsageWriter(APPLIANCE, "north", KEYS)
        for manifest in MANIFESTS[:2]:
            writer.add(manifest)
        with pytest.raises(BadBundle, match="while the bundle was written"):
            list(writer.write(io.BytesIO(), b"", iter(other)))


def test_a_bundle_is_full_before_it_is_too_large() -> None:
    manifests = [CarriedManifest(1, seq, b"e" * 700, b"l" * 3_000) for seq in range(1, 101)]
    for bytes_max in range(20_000, 200_000, 7_919):
        raw, count = write_usage(APPLIANCE, "n", KEYS, b"", manifests, bytes_max=bytes_max)
        assert len(raw) <= bytes_max
        assert read_usage(raw) == manifests[:count]
        more, _ = write_usage(APPLIANCE, "n", KEYS, b"", manifests[: count + 1])
        # What is kept free for the largest index and checkpoint, and no more than that.
        assert len(more) > bytes_max - span(4_096) - span(16_384) or count == 100


def test_the_writer_takes_no_more_than_its_own() -> None:
    source: Iterator[CarriedManifest] = iter(MANIFESTS)
    writer = UsageWriter(APPLIANCE, "north", KEYS)
    writer.add(MANIFESTS[0])
    assert list(writer.write(io.BytesIO(), b"", source)) == [1]
    assert next(source) == MANIFESTS[1]


def test_there_are_only_so_many_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = usage()
    monkeypatch.setattr(bundle_module, "MANIFESTS_MAX", 2)
    with pytest.raises(BadBundle):
        read_usage(raw)
    assert write_usage(APPLIANCE, "north", KEYS, b"", MANIFESTS)[1] == 2


def test_memory_holds_hashes_not_manifests() -> None:
    def manifests() -> Iterator[CarriedManifest]:
        for seq in range(1, 3_001):
            yield CarriedManifest(1, seq, os.urandom(16) * 64, os.urandom(16) * 256)

    kept = list(manifests())
    writer = UsageWriter(APPLIANCE, "north", KEYS)
    tracemalloc.start()
    for manifest in kept:
        writer.add(manifest)
    planned = tracemalloc.get_traced_memory()[0]
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 (no path of ours)
        for _ in writer.write(nowhere, b"", kept):
            pass
    written = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 15 MB of content; the sums of 6,000 members are 0.5 MB, held a few times over.
    assert planned < 1_500_000
    assert written < 4_000_000
