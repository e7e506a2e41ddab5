"""The store of models on a disk: nothing unverified in it, nothing outside of it."""

import contextlib
import hashlib
import os
from pathlib import Path

import pytest

from appliance.wire.agent import ModelFile
from appliance.wire.model_store import (
    PARTIAL_KEPT_S,
    AlreadyComing,
    BadModelFiles,
    ModelStore,
    OtherContent,
    check_files,
)

NOW_S = 2_000_000_000.0


def file(name: str, content: bytes = b"weights") -> ModelFile:
    return ModelFile(name=name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def put(store: ModelStore, name: str, content: bytes) -> ModelFile:
    one = file(name, content)
    with store.receive(one) as incoming:
        incoming.write(content[incoming.offset :])
    return one


def begin(store: ModelStore, one: ModelFile, content: bytes) -> None:
    """A copy that is interrupted after `content`."""
    with contextlib.suppress(KeyboardInterrupt), store.receive(one) as incoming:
        incoming.write(content)
        raise KeyboardInterrupt


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "a/", ".hidden"),
        *("a\\b", "a\0b", "a\nb", "C:x", "-rf", "ä.bin", "a/b/c/d/e", "n" * 91, "a b", "~root"),
    ],
)
def test_names_that_leave_the_folder_or_surprise_are_refused(name: str) -> None:
    with pytest.raises(BadModelFiles):
        check_files([file(name)])


def test_names_that_models_have_are_taken() -> None:
    names = ("config.json", "model-00001-of-00030.safetensors", "1_Pooling/config.json", "a+b@c=d")
    check_files([file(name) for name in names])


@pytest.mark.parametrize(
    "files",
    [
        [],
        [file("a"), file("a")],
        [file("A.json"), file("a.JSON")],
        [file("a"), file("a/b")],
        [file("a/b"), file("A")],
        [ModelFile(name="a", sha256="../../x", size_bytes=1)],
        [ModelFile(name="a", sha256="AB" * 32, size_bytes=1)],
        [ModelFile(name="a", sha256="0" * 64, size_bytes=-1)],
        [ModelFile(name="a", sha256="0" * 64, size_bytes=2**60)],
        [file(f"n{number}") for number in range(10_001)],
    ],
)
def test_lists_that_are_no_models_are_refused(files: list[ModelFile]) -> None:
    with pytest.raises(BadModelFiles):
        check_files(files)


def test_content_is_there_only_when_it_is_right(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    one = file("a", b"right")
    for wrong in (b"wrong", b"right and more", b"rig"):
        with pytest.raises(OtherContent), store.receive(one) as incoming:
            incoming.write(wrong)
        assert not store.has(one)
        assert store.received_bytes(one) == 0
    put(store, "a", b"right")
    assert store.has(one)
    assert store.content(one.sha256).read_bytes() == b"right"
    assert store.content(one.sha256).stat().st_mode & 0o777 == 0o444


def test_an_interrupted_copy_goes_on_and_what_was_left_is_hashed_again(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    one = file("a", b"one two three")
    begin(store, one, b"one two")
    assert store.received_bytes(one) == 7
    with store.receive(one) as incoming:
        assert incoming.offset == 7
        incoming.write(b" three")
    assert store.has(one)

    two = file("b", b"four five six")
    begin(store, two, b"four")
    (tmp_path / "partial" / two.sha256).write_bytes(b"FOUR")
    with pytest.raises(OtherContent), store.receive(two) as incoming:
        incoming.write(b" five six")
    assert store.received_bytes(two) == 0


def test_one_content_has_one_receiver(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    one = file("a", b"x")
    with store.receive(one) as incoming:
        with pytest.raises(AlreadyComing), store.receive(one):
            pass
        incoming.write(b"x")
    assert store.has(one)


def test_a_link_in_the_place_of_partial_content_is_not_followed(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    one = file("a", b"x")
    (tmp_path / "store" / "partial").mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "store" / "partial" / one.sha256).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"), store.receive(one):
        pass
    assert victim.read_text() == "untouched"


def test_versions_share_what_they_have_in_common_until_none_needs_it(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    tokenizer = put(store, "tokenizer.json", b"words")
    first = put(store, "model.safetensors", b"first weights")
    second = put(store, "model.safetensors", b"second weights")
    one, two = digest("a"), digest("b")
    store.assemble(one, [tokenizer, first])
    folder = store.assemble(two, [tokenizer, second])
    assert store.assemble(two, [tokenizer, second]) == folder
    assert (folder / "tokenizer.json").read_bytes() == b"words"
    assert store.digests() == (one, two)
    assert store.content(tokenizer.sha256).stat().st_nlink == 3

    assert store.sweep({one, two}, NOW_S) == ((), 0)
    assert store.sweep({two}, NOW_S, dry=True) == ((one,), len(b"first weights"))
    assert store.digests() == (one, two)
    assert store.sweep({two}, NOW_S) == ((one,), len(b"first weights"))
    assert store.digests() == (two,)
    assert store.has(tokenizer)
    assert not store.has(first)
    assert store.sweep(set(), NOW_S) == ((two,), len(b"words") + len(b"second weights"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_beginning_of_a_model_is_kept_for_its_continuation_for_a_week(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    one = put(store, "a", b"whole file")
    two = file("b", b"half a file")
    begin(store, two, b"half")
    for path in (store.content(one.sha256), tmp_path / "partial" / two.sha256):
        os.utime(path, (NOW_S, NOW_S))
    assert store.sweep(set(), NOW_S + PARTIAL_KEPT_S) == ((), 0)
    assert store.sweep(set(), NOW_S + PARTIAL_KEPT_S + 1) == ((), len(b"whole file") + 4)


def test_a_digest_that_is_none_has_no_folder(tmp_path: Path) -> None:
    for bad in ("sha256:../../etc", "sha256:" + "A" * 64, "", "md5:" + "a" * 64):
        with pytest.raises(BadModelFiles):
            ModelStore(tmp_path).folder(bad)
