"""The file of a model pack: an uncompressed tar that can be looked into with `tar tvf`.

    publisher.pem     the public key of who made it
    index.json        the signed index (a DSSE envelope)
    LICENSE           its licence, where the index states one with its text
    files/<name>      the model's files, in the index's order

A reader takes no name, size, kind or mode from the archive: from the verified index follows every
header, byte for byte, and where it must stand. So there is no member that could be a link, leave
the folder, come twice, or be larger than it says.
"""

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from appliance.modelpacks.errors import BadPack
from appliance.modelpacks.index import AGAIN, INDEX_BYTES_MAX, Licence, PackIndex, open_index
from appliance.security.errors import BadPublicKey
from appliance.security.signing import PEM_BYTES_MAX, PublicKey
from appliance.wire.agent import ModelFile
from appliance.wire.model_store import CHUNK_BYTES

BLOCK_BYTES: Final = 512
END: Final = bytes(2 * BLOCK_BYTES)
PUBLISHER: Final = "publisher.pem"
INDEX: Final = "index.json"
LICENCE: Final = "LICENSE"
FILES: Final = "files/"

_NO_PACK: Final = "Give a file that `cic model pack` made."


def header(name: str, size_bytes: int) -> bytes:
    """The one header that a plain file of that name and size has in a pack."""
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    info.mode = 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % BLOCK_BYTES)


def _span(size_bytes: int) -> int:
    return BLOCK_BYTES + size_bytes + len(padding(size_bytes))


@dataclass(frozen=True, slots=True)
class Pack:
    """An open pack whose index is verified and whose every header is where it must be."""

    publisher: PublicKey
    index: PackIndex
    licence_text: str
    _file: BinaryIO
    _offsets: dict[str, int]  # of the content of each file

    def read(self, file: ModelFile, offset: int) -> Iterator[bytes]:
        """The content of a file from `offset` on; whether it is the right one is yet to be seen."""
        self._file.seek(self._offsets[file.name] + offset)
        left = file.size_bytes - offset
        while left:
            chunk = _read(self._file, min(left, CHUNK_BYTES))
            if not chunk:
                raise BadPack(f"The pack is cut off in {file.name}.", next_step=AGAIN)
            left -= len(chunk)
            yield chunk


@contextmanager
def open_pack(path: Path) -> Iterator[Pack]:
    """Verify a pack's index, licence and outline. Raises BadPack, PackForged."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadPack(
            f"Cannot open the pack {path}: {error.strerror}.",
            next_step="Check the path, and that the appliance's account may read it.",
        ) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise BadPack(f"{path} is no file.", next_step=_NO_PACK)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 (opens a descriptor)
        yield _read_outline(file, status.st_size)


def _read_outline(file: BinaryIO, size_bytes: int) -> Pack:
    publisher = _publisher(_read_small(file, PUBLISHER, PEM_BYTES_MAX))
    index = open_index(_read_small(file, INDEX, INDEX_BYTES_MAX), publisher)
    position = file.tell()
    licence_text = ""
    licence = index.licence
    if licence is not None and licence.size_bytes:
        licence_text = _licence(file, licence)
        position += _span(licence.size_bytes)
    whole = position + sum(_span(one.size_bytes) for one in index.files) + len(END)
    if size_bytes < whole:
        raise BadPack(
            f"The pack is cut off: {size_bytes:,} of {whole:,} bytes are there.", next_step=AGAIN
        )
    if size_bytes > whole:
        raise BadPack("Something stands behind the pack's end.", next_step=AGAIN)
    offsets = {}
    for one in index.files:
        file.seek(position)
        if _read(file, BLOCK_BYTES) != header(FILES + one.name, one.size_bytes):
            raise BadPack(f"The pack has something else where {one.name} is.", next_step=AGAIN)
        offsets[one.name] = position + BLOCK_BYTES
        fill = padding(one.size_bytes)
        file.seek(position + BLOCK_BYTES + one.size_bytes)
        if _read(file, len(fill)) != fill:
            raise BadPack(f"Something stands behind {one.name} in the pack.", next_step=AGAIN)
        position += _span(one.size_bytes)
    file.seek(position)
    if _read(file, len(END)) != END:
        raise BadPack("The pack does not end as it should.", next_step=AGAIN)
    return Pack(publisher, index, licence_text, file, offsets)


def _read_small(file: BinaryIO, name: str, bytes_max: int) -> bytes:
    """A member whose size is known from its header alone, and bounded."""
    block = _read(file, BLOCK_BYTES)
    if len(block) < BLOCK_BYTES or not block.startswith(name.encode() + b"\0"):
        raise BadPack("This is no model pack.", next_step=_NO_PACK)
    try:
        size = int(block[124:135], 8)
    except ValueError as error:
        raise BadPack("A header in the pack is damaged.", next_step=AGAIN) from error
    if not 0 < size <= bytes_max or header(name, size) != block:
        raise BadPack(f"The header of {name} in the pack is not its own.", next_step=AGAIN)
    return _content(file, name, size)


def _content(file: BinaryIO, name: str, size: int) -> bytes:
    content = _exactly(file, size)
    fill = padding(size)
    if len(content) != size or _exactly(file, len(fill)) != fill:
        raise BadPack(f"The pack is cut off or damaged at {name}.", next_step=AGAIN)
    return content


def _read(file: BinaryIO, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise BadPack(
            f"The pack cannot be read: {error.strerror}.",
            next_step="The disk or stick may be damaged: copy the pack anew and try again.",
        ) from error


def _exactly(file: BinaryIO, size: int) -> bytes:
    """Up to `size` bytes; fewer at the end of the file."""
    pieces: list[bytes] = []
    while size and (piece := _read(file, size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _publisher(pem: bytes) -> PublicKey:
    try:
        key = PublicKey.from_pem(pem)
    except BadPublicKey as error:
        raise BadPack(
            f"The pack's publisher is unclear: {error.message}", next_step=AGAIN
        ) from error
    if key.pem.encode() != pem:
        raise BadPack("The pack's public key is not as it is written.", next_step=AGAIN)
    return key


def _licence(file: BinaryIO, licence: Licence) -> str:
    if _read(file, BLOCK_BYTES) != header(LICENCE, licence.size_bytes):
        raise BadPack("The pack has something else where its licence is.", next_step=AGAIN)
    content = _content(file, LICENCE, licence.size_bytes)
    if hashlib.sha256(content).hexdigest() != licence.sha256:
        raise BadPack("The pack's licence was changed.", next_step=AGAIN)
    return content.decode("utf-8", "replace")
