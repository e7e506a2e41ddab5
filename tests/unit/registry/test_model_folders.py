"""Models that are folders: whole or told what is missing, never anything that runs."""

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.registry.errors import ModelUnreadable
from appliance.registry.registry import Registry
from appliance.registry.weights import digest_of, look_at
from tests.fakes.model_packs import write_folder, write_shard
from tests.fakes.registry import ACTOR

SECOND = "model-00002-of-00002.safetensors"


async def test_a_folder_is_a_model_known_by_the_list_of_its_files(
    registry: Registry, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "Small-1B")
    (folder / ".cache").mkdir()
    (folder / "modelling.py").write_text("raise SystemExit")
    row = await registry.models.register(ACTOR, None, folder)
    assert (row.name, row.architecture, row.context_tokens) == ("Small-1B", "llama", 2048)
    assert (row.path, row.entry, row.folder) == (str(folder), "", folder)
    assert [file.name for file in row.files] == [
        "config.json",
        "model-00001-of-00002.safetensors",
        SECOND,
        "model.safetensors.index.json",
        "tokenizer.json",
    ]
    assert row.size_bytes == sum(file.size_bytes for file in row.files)
    for file in row.files:
        content = (folder / file.name).read_bytes()
        assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert row.digest == digest_of(row.files, "")
    assert await registry.models.get("Small-1B") == row
    (folder / "tokenizer.json").write_text("{ }")
    other = await registry.models.register(ACTOR, "other", folder)
    assert other.digest != row.digest


def _cut(folder: Path) -> None:
    whole = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(whole[:-1])


def _longer(folder: Path) -> None:
    with (folder / SECOND).open("ab") as file:
        file.write(b"x")


def _huge_table(folder: Path) -> None:
    (folder / SECOND).write_bytes(struct.pack("<Q", 2**63) + b"{}")


def _no_table(folder: Path) -> None:
    (folder / SECOND).write_bytes(struct.pack("<Q", 2) + b"[]")


def _missing(folder: Path) -> None:
    (folder / SECOND).unlink()


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _bad_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _no_type(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def _pickled(folder: Path) -> None:
    for shard in folder.glob("*.safetensors"):
        shard.rename(shard.with_suffix(".bin"))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_cut, "cut off"),
        (_longer, "cut off"),
        (_huge_table, "no safetensors"),
        (_no_table, "table of tensors"),
        (_missing, f"{SECOND} is missing"),
        (_no_config, "no config.json"),
        (_bad_config, "not understood"),
        (_no_type, "model_type"),
        (_pickled, "pickled"),
        (_empty, "no config.json"),
    ],
)
def test_a_folder_that_is_not_whole_says_what_is_wrong(
    tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    folder = write_folder(tmp_path / "small")
    spoil(folder)
    with pytest.raises(ModelUnreadable, match=says) as caught:
        look_at(folder)
    assert str(folder) in caught.value.message
    assert caught.value.next_step


def test_the_context_of_a_model_with_several_parts_is_that_of_its_text(tmp_path: Path) -> None:
    folder = tmp_path / "seeing"
    folder.mkdir()
    write_shard(folder / "model.safetensors", b"weights")
    config = {"model_type": "seer", "text_config": {"max_position_embeddings": 4096}}
    (folder / "config.json").write_text(json.dumps(config))
    assert look_at(folder).header.context_tokens == 4096
