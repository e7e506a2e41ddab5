"""Checkpoints: the size and the root of a site's log of manifests, as a signed note.

Formats: C2SP signed-note, tlog-checkpoint and tlog-cosignature v1, so that public tools read them.

- The log's origin is `crosslogic-appliance/<appliance_id>`, and so is the name of its key.
- The site signs with its manifest key (type 0x01); the control plane cosigns with the time at
  which it saw this tree (type 0x04): from then on no other tree of that size can be shown to it.
"""

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from appliance.manifests.errors import BadCheckpoint
from appliance.manifests.keys import KnownSite
from appliance.manifests.merkle import HASH_BYTES, Frontier
from appliance.security.signing import PublicKey, SigningKey

ORIGIN: Final = "crosslogic-appliance/"
NOTE_BYTES_MAX: Final = 16_384
SIGNATURES_MAX: Final = 16
SIZE_MAX: Final = 2**63 - 1
_DASH: Final = "\u2014 "
_ED25519: Final = b"\x01"
_COSIGNATURE: Final = b"\x04"
_ID_BYTES: Final = 4
_TIME_BYTES: Final = 8
_SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: the name of a key, its short id, and what it signed."""

    name: str
    key_hash: bytes  # 4 bytes
    signature: bytes  # of a cosignature: the time as 8 bytes, then the signature


@dataclass(frozen=True, slots=True)
class Checkpoint:
    origin: str
    size: int
    root: bytes
    signatures: tuple[NoteSignature, ...] = ()

    @property
    def body(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"

    def note(self) -> str:
        """The whole note, as it travels."""
        lines = (
            f"{_DASH}{one.name} {b64encode(one.key_hash + one.signature).decode()}\n"
            for one in self.signatures
        )
        return f"{self.body}\n{''.join(lines)}"


def origin_of(appliance_id: str) -> str:
    """The name of a site's log and of the key that signs it."""
    return ORIGIN + appliance_id


def sign_checkpoint(appliance_id: str, log: Frontier, key: SigningKey) -> Checkpoint:
    """The site's own statement of its log."""
    unsigned = Checkpoint(origin_of(appliance_id), log.size, log.root())
    name = unsigned.origin
    signature = NoteSignature(
        name, key_hash(name, _ED25519, key.public), key.sign(unsigned.body.encode())
    )
    return replace(unsigned, signatures=(signature,))


def cosign(checkpoint: Checkpoint, name: str, key: SigningKey, at_s: int) -> Checkpoint:
    """The same with a cosignature. Who cosigns has verified that this tree continues the last."""
    message = _cosigned(checkpoint, at_s)
    signature = NoteSignature(
        name,
        key_hash(name, _COSIGNATURE, key.public),
        at_s.to_bytes(_TIME_BYTES, "big") + key.sign(message),
    )
    return replace(checkpoint, signatures=(*checkpoint.signatures, signature))


def parse_checkpoint(note: str) -> Checkpoint:
    """The checkpoint of a note, unverified. Raises BadCheckpoint.

    Strict: three lines, no extensions, and exactly the text that `note` would write.
    """
    if len(note) > NOTE_BYTES_MAX:
        raise BadCheckpoint("The checkpoint is too long.")
    body, blank, rest = note.partition("\n\n")
    lines = body.split("\n")
    if not blank or len(lines) != 3 or not lines[0].startswith(ORIGIN):
        raise BadCheckpoint("This is no checkpoint of an appliance's log.")
    try:
        size, root = int(lines[1]), b64decode(lines[2], validate=True)
        signatures = tuple(_read_signature(line) for line in rest.split("\n")[:-1])
    except (ValueError, NotBase64) as error:
        raise BadCheckpoint(f"This is no checkpoint: {error}.") from error
    checkpoint = Checkpoint(lines[0], size, root, signatures)
    if not 0 <= size <= SIZE_MAX or len(root) != HASH_BYTES or checkpoint.note() != note:
        raise BadCheckpoint("The checkpoint is not written as checkpoints are.")
    if not 1 <= len(signatures) <= SIGNATURES_MAX:
        raise BadCheckpoint("The checkpoint has no signature, or too many.")
    return checkpoint


def verify_checkpoint(checkpoint: Checkpoint, appliance_id: str, key: PublicKey) -> None:
    """That the site signed it. Raises BadCheckpoint."""
    if checkpoint.origin != origin_of(appliance_id):
        raise BadCheckpoint(f"The checkpoint is of another log: {checkpoint.origin!r}.")
    expected = key_hash(checkpoint.origin, _ED25519, key)
    for one in checkpoint.signatures:
        if one.name == checkpoint.origin and one.key_hash == expected:
            if key.verify(one.signature, checkpoint.body.encode()):
                return
            break
    raise BadCheckpoint(
        "The checkpoint is not signed by this site's key.",
        next_step="Give the public key that signed at the time of the checkpoint.",
    )


def open_checkpoint(raw: bytes, site: KnownSite) -> Checkpoint:
    """The checkpoint of a site, signed with one of its keys that is not revoked.

    Raises BadCheckpoint.
    """
    try:
        checkpoint = parse_checkpoint(raw.decode())
    except UnicodeDecodeError as error:
        raise BadCheckpoint("The checkpoint is no text.") from error
    for known in reversed(site.keys):
        if known.revoked is None:
            with suppress(BadCheckpoint):
                verify_checkpoint(checkpoint, site.appliance_id, known.key)
                return checkpoint
    raise BadCheckpoint(
        "The checkpoint is not signed with a key of this site.",
        next_step="Give the site's public key, of the time of the checkpoint.",
    )


def verify_cosignature(checkpoint: Checkpoint, name: str, key: PublicKey) -> int:
    """The time, in seconds since 1970, at which `name` saw this tree. Raises BadCheckpoint."""
    expected = key_hash(name, _COSIGNATURE, key)
    for one in checkpoint.signatures:
        if one.name == name and one.key_hash == expected:
            at_s = int.from_bytes(one.signature[:_TIME_BYTES], "big")
            signature = one.signature[_TIME_BYTES:]
            if key.verify(signature, _cosigned(checkpoint, at_s)):
                return at_s
            break
    raise BadCheckpoint(f"The checkpoint is not cosigned by {name}.")


def key_hash(name: str, kind: bytes, key: PublicKey) -> bytes:
    """The short id of a key in a signed note."""
    return sha256(name.encode() + b"\n" + kind + key.raw).digest()[:_ID_BYTES]


def _cosigned(checkpoint: Checkpoint, at_s: int) -> bytes:
    return f"cosignature/v1\ntime {at_s}\n{checkpoint.body}".encode()


def _read_signature(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    raw = b64decode(encoded, validate=True)
    signature = raw[_ID_BYTES:]
    if not line.startswith(_DASH) or not name or not space or "+" in name:
        raise ValueError("a line is no signature")
    if len(signature) not in (_SIGNATURE_BYTES, _TIME_BYTES + _SIGNATURE_BYTES):
        raise ValueError("a signature has a strange length")
    return NoteSignature(name, raw[:_ID_BYTES], signature)
