"""Model packs for tests, honest and otherwise."""

import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from appliance.modelpacks.container import END, FILES, INDEX, LICENCE, PUBLISHER, header, padding
from appliance.modelpacks.index import Golden, Licence, PackIndex, sign_index
from appliance.modelpacks.packing import About, make_pack
from appliance.registry.weights import digest_of, look_at
from appliance.security.signing import SigningKey
from appliance.wire.agent import ModelFile

KEY = SigningKey(b"k" * 32)
STRANGER = SigningKey(b"x" * 32)
TEXT = b"Do as you like.\n"


def write_shard(path: Path, content: bytes) -> None:
    """A safetensors file whose one tensor is `content`."""
    table = {"w": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}
    head = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + content)


def write_folder(folder: Path, shards: Sequence[bytes] = (b"one" * 50, b"two" * 70)) -> Path:
    """A model as a folder of safetensors."""
    folder.mkdir(parents=True)
    config = {"model_type": "llama", "max_position_embeddings": 2048}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    names = [
        f"model-{number + 1:05}-of-{len(shards):05}.safetensors" for number in range(len(shards))
    ]
    for name, content in zip(names, shards, strict=True):
        write_shard(folder / name, content)
    index = {"weight_map": {f"w{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "LICENSE").write_bytes(TEXT)
    return folder


def pack_folder(folder: Path, out: Path, *, name: str = "small", version: str = "1") -> PackIndex:
    about = About(
        name=name,
        version=version,
        created_at="2026-11-22T19:22:03Z",
        licence="Free-1.0",
        licence_text=TEXT,
        golden=Golden("Say river.", "river"),
    )
    return make_pack(look_at(folder), about, KEY, out)


def index_of(contents: Mapping[str, bytes], /, **changes: object) -> PackIndex:
    """An index that may say anything, as an attacker with a key would sign it."""
    listed = tuple(
        ModelFile(name=name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        for name, content in contents.items()
    )
    fields: dict[str, object] = {
        "name": "small",
        "architecture": "llama",
        "digest": digest_of(listed, ""),
        "entry": "",
        "files": listed,
        "licence": Licence("Free-1.0", hashlib.sha256(TEXT).hexdigest(), len(TEXT)),
        "created_at": "2026-11-22T19:22:03Z",
    }
    return PackIndex(**{**fields, **changes})  # type: ignore[arg-type]  # what is said may be anything


def member(name: str, content: bytes) -> bytes:
    return header(name, len(content)) + content + padding(len(content))


def assemble(index: PackIndex, files: Mapping[str, bytes], key: SigningKey = KEY) -> bytes:
    """A pack of that index, whether it fits the files or not."""
    parts = [member(PUBLISHER, key.public.pem.encode()), member(INDEX, sign_index(index, key))]
    if index.licence is not None:
        parts.append(member(LICENCE, TEXT))
    parts += [member(FILES + name, content) for name, content in files.items()]
    return b"".join([*parts, END])


def replace_member(pack: bytes, name: str, info: tarfile.TarInfo, content: bytes = b"") -> bytes:
    """The pack with another member in the place of `name`, as `tarfile` writes it."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(pack)) as source,
        tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as target,
    ):
        for each in source.getmembers():
            if each.name == name:
                target.addfile(info, io.BytesIO(content))
            else:
                target.addfile(each, source.extractfile(each))
    return out.getvalue()
