"""Merkle trees of RFC 6962 section 2.1, SHA-256.

- The hash of a leaf is SHA-256(0x00 || data), of a node SHA-256(0x01 || left || right), of no
  leaves SHA-256 of nothing.
- Level by level, the last node of an odd level rises as it is: that is the RFC's recursive split.
- Proofs are lists of hashes from the leaf upward, as in the RFC and in RFC 9162.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256().digest()
_SIZE_BYTES: Final = 8


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """The root over leaves in their order."""
    level = list(leaf_hashes)
    while len(level) > 1:
        level = _above(level)
    return level[0] if level else EMPTY_ROOT


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The siblings on the way from leaf `index` to the root. Raises IndexError."""
    if not 0 <= index < len(leaf_hashes):
        raise IndexError(index)
    level, path = list(leaf_hashes), []
    while len(level) > 1:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        level, index = _above(level), index // 2
    return path


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that the proof leads to; whether it is the right one is the caller's to compare.

    Raises ValueError when a tree of `size` leaves has no such leaf or its proof another length.
    """
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    last, left_over, running = size - 1, list(reversed(proof)), leaf
    while last > 0:
        if index & 1 or index < last:
            if not left_over:
                raise ValueError("the proof is too short")
            sibling = left_over.pop()
            running = node_hash(sibling, running) if index & 1 else node_hash(running, sibling)
        index, last = index // 2, last // 2
    if left_over:
        raise ValueError("the proof is too long")
    return running


def consistency_proof(leaf_hashes: Sequence[bytes], size: int) -> list[bytes]:
    """That the tree of the first `size` leaves is the beginning of this one (RFC 6962 2.1.2)."""
    if not 0 < size <= len(leaf_hashes):
        raise ValueError("no such size")
    return _subproof(leaf_hashes, size, whole=True)


def _subproof(leaves: Sequence[bytes], size: int, *, whole: bool) -> list[bytes]:
    if size == len(leaves):
        return [] if whole else [root(leaves)]
    split = _split(len(leaves))
    if size <= split:
        return [*_subproof(leaves[:split], size, whole=whole), root(leaves[split:])]
    return [*_subproof(leaves[split:], size - split, whole=False), root(leaves[:split])]


def verify_consistency(
    size: int, older: bytes, new_size: int, newer: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether the tree of `size` leaves and root `older` is the beginning of the newer one.

    The algorithm of RFC 9162 section 2.1.4.2. Nothing is the beginning of every tree.
    """
    if not 0 <= size <= new_size:
        return False
    if size in (0, new_size):
        return not proof and older == (EMPTY_ROOT if size == 0 else newer)
    path = list(proof)
    if size & (size - 1) == 0:
        path.insert(0, older)
    if not path:
        return False
    place, last = size - 1, new_size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old_root = new_root = path[0]
    for hashed in path[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            old_root, new_root = node_hash(hashed, old_root), node_hash(hashed, new_root)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            new_root = node_hash(new_root, hashed)
        place, last = place >> 1, last >> 1
    return last == 0 and old_root == older and new_root == newer


class Frontier:
    """A tree that only grows, kept as the roots of its full subtrees: log2(size) hashes."""

    __slots__ = ("_roots", "size")

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        """`roots`: of the full subtrees from the left, one for each bit set in `size`."""
        if len(roots) != size.bit_count() or any(len(one) != HASH_BYTES for one in roots):
            raise ValueError("these are not the roots of a tree of that size")
        self.size = size
        self._roots = list(roots)

    def append(self, leaf: bytes) -> None:
        """Add the hash of a leaf at the right end."""
        roots, size = self._roots, self.size
        while size & 1:
            leaf = sha256(b"\x01" + roots.pop() + leaf).digest()
            size >>= 1
        roots.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        if not self._roots:
            return EMPTY_ROOT
        running = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            running = node_hash(left, running)
        return running

    @property
    def roots(self) -> tuple[bytes, ...]:
        """Of the full subtrees, from the left."""
        return tuple(self._roots)

    def copy(self) -> "Frontier":
        return Frontier(self.size, self._roots)

    def to_bytes(self) -> bytes:
        """The size as 8 bytes, big-endian, and the hashes."""
        return self.size.to_bytes(_SIZE_BYTES, "big") + b"".join(self._roots)

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Frontier":
        """Raises ValueError when these are no bytes of `to_bytes`; no bytes are an empty tree."""
        if 0 < len(raw) < _SIZE_BYTES:
            raise ValueError("these are not the roots of a tree of any size")
        size, rest = int.from_bytes(raw[:_SIZE_BYTES], "big"), raw[_SIZE_BYTES:]
        places = range(0, len(rest), HASH_BYTES)
        return cls(size, [rest[place : place + HASH_BYTES] for place in places])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frontier) and other.to_bytes() == self.to_bytes()

    __hash__ = None  # type: ignore[assignment]  # it changes


def _above(level: list[bytes]) -> list[bytes]:
    pairs = iter(level)
    above = [
        sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)
    ]
    if len(level) & 1:
        above.append(level[-1])
    return above


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)
