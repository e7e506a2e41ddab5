"""A manifest after stage 1. Loads nothing of the database: other processes make these too."""

import zlib
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from appliance.manifests.codes import Code
from appliance.manifests.documents import Disposition
from appliance.manifests.keys import Place
from appliance.manifests.verify import Checked, Finding, Read

_PACK_LEVEL: Final = 1


class Bytes(NamedTuple):
    """A manifest as it was stored."""

    envelope: bytes
    lines: bytes


@dataclass(frozen=True, slots=True)
class Examined:
    """A manifest after stage 1: `checked` when its bytes are right, else `finding`."""

    envelope: bytes
    lines: bytes
    place: Place  # (0, 0) when none could be read
    sha256: str  # of the payload; of the envelope when none could be read
    checked: Checked | None
    finding: Finding | None
    packed: bytes = b""

    @classmethod
    def unread(cls, envelope: bytes, lines: bytes, finding: Finding) -> "Examined":
        return cls(envelope, lines, (0, 0), sha256(envelope).hexdigest(), None, finding)

    @classmethod
    def of(cls, envelope: bytes, lines: bytes, read: Read, result: Checked | Finding) -> "Examined":
        place = (read.header.epoch, read.header.seq)
        if isinstance(result, Finding):
            return cls(envelope, lines, place, read.sha256, None, result)
        return cls(envelope, lines, place, read.sha256, result, None, pack(lines))

    def disposition(self, code: Code, detail: str = "") -> Disposition:
        return Disposition(
            epoch=self.place[0],
            seq=self.place[1],
            sha256=self.sha256,
            code=code.value,
            detail=detail[:500],
        )


def pack(lines: bytes) -> bytes:
    """Lines as they are stored."""
    return zlib.compress(lines, _PACK_LEVEL)


def unpack(packed: bytes) -> bytes:
    return zlib.decompress(packed)
