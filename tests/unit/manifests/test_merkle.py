"""Trees against published vectors, against the RFC's own recursion, and against themselves.

Vectors: the reference tests of certificate-transparency (`merkletree`), which RFC 6962 trees of
many programs are checked with.
"""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.manifests.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root,
    root_from_inclusion,
    verify_consistency,
)

LEAVES = [
    leaf_hash(bytes.fromhex(data))
    for data in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
INCLUSION = {
    (0, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
}
CONSISTENCY = {
    (1, 8): INCLUSION[0, 8],
    (6, 8): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
}


def make_leaves(count: int) -> list[bytes]:
    return [leaf_hash(b"%d" % number) for number in range(count)]


# The definitions of RFC 6962 section 2.1, word by word; `m` and `n` are the RFC's names.
def rfc_split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def rfc_root(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = rfc_split(len(leaves))
    return sha256(b"\x01" + rfc_root(leaves[:k]) + rfc_root(leaves[k:])).digest()


def rfc_path(m: int, leaves: list[bytes]) -> list[bytes]:
    n = len(leaves)
    if n == 1:
        return []
    k = rfc_split(n)
    if m < k:
        return [*rfc_path(m, leaves[:k]), rfc_root(leaves[k:])]
    return [*rfc_path(m - k, leaves[k:]), rfc_root(leaves[:k])]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_published_ones(size: int) -> None:
    assert root(LEAVES[:size]).hex() == ROOTS[size]
    frontier = Frontier()
    for leaf in LEAVES[:size]:
        frontier.append(leaf)
    assert (frontier.size, frontier.root().hex()) == (size, ROOTS[size])


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_are_the_published_ones(index: int, size: int) -> None:
    proof = inclusion_proof(LEAVES[:size], index)
    assert tuple(one.hex() for one in proof) == INCLUSION[index, size]
    assert root_from_inclusion(LEAVES[index], index, size, proof).hex() == ROOTS[size]


@pytest.mark.parametrize(("size", "new_size"), CONSISTENCY)
def test_consistency_proofs_are_the_published_ones(size: int, new_size: int) -> None:
    proof = consistency_proof(LEAVES[:new_size], size)
    assert tuple(one.hex() for one in proof) == CONSISTENCY[size, new_size]


def test_every_tree_up_to_70_is_what_the_definition_says() -> None:
    leaves, frontier = make_leaves(70), Frontier()
    for size in range(71):
        expected = rfc_root(leaves[:size])
        assert root(leaves[:size]) == expected
        assert frontier.root() == expected
        if size < 70:
            frontier.append(leaves[size])


@given(st.integers(1, 200), st.data())
def test_a_leaf_is_proven_and_nothing_else_is(size: int, data: st.DataObject) -> None:
    leaves = make_leaves(size)
    index = data.draw(st.integers(0, size - 1))
    proof, top = inclusion_proof(leaves, index), root(leaves)
    assert proof == rfc_path(index, leaves)
    assert root_from_inclusion(leaves[index], index, size, proof) == top
    assert root_from_inclusion(leaf_hash(b"other"), index, size, proof) != top
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        try:
            assert root_from_inclusion(leaves[index], other, size, proof) != top
        except ValueError:
            assert len(rfc_path(other, leaves)) != len(proof)
    with pytest.raises(ValueError, match="too long"):
        root_from_inclusion(leaves[index], index, size, [*proof, bytes(32)])
    if proof:
        with pytest.raises(ValueError, match="too short"):
            root_from_inclusion(leaves[index], index, size, proof[:-1])


def test_every_two_sizes_up_to_20_are_consistent_and_no_other_root_is() -> None:
    leaves = make_leaves(20)
    for new_size in range(1, 21):
        newer = root(leaves[:new_size])
        for size in range(1, new_size + 1):
            older, proof = root(leaves[:size]), consistency_proof(leaves[:new_size], size)
            assert verify_consistency(size, older, new_size, newer, proof)
            assert not verify_consistency(size, bytes(32), new_size, newer, proof)
            assert not verify_consistency(size, older, new_size, bytes(32), proof)
            assert not verify_consistency(size, older, new_size, newer, [*proof, bytes(32)])
            if proof:
                assert not verify_consistency(size, older, new_size, newer, [])
            if proof:
                assert not verify_consistency(size, older, new_size, newer, proof[:-1])
                for place in range(len(proof)):
                    bent = [*proof]
                    bent[place] = bytes(32)
                    assert not verify_consistency(size, older, new_size, newer, bent)


def test_nothing_is_the_beginning_of_every_tree_and_a_larger_tree_of_none() -> None:
    leaves = make_leaves(5)
    assert verify_consistency(0, EMPTY_ROOT, 5, root(leaves), [])
    assert not verify_consistency(0, root(leaves), 5, root(leaves), [])
    assert not verify_consistency(5, root(leaves), 4, root(leaves[:4]), [])
    assert not verify_consistency(-1, EMPTY_ROOT, 4, root(leaves[:4]), [])
    with pytest.raises(ValueError, match="no such size"):
        consistency_proof(leaves, 6)


def test_a_leaf_that_is_not_there_is_refused() -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError):
            inclusion_proof(make_leaves(3), index)
        with pytest.raises(ValueError, match="no such leaf"):
            root_from_inclusion(bytes(32), index, 3, [])


@given(st.integers(0, 300))
def test_a_frontier_lives_through_its_bytes(size: int) -> None:
    frontier = Frontier()
    for leaf in make_leaves(size):
        frontier.append(leaf)
    again = Frontier.from_bytes(frontier.to_bytes())
    again.append(bytes(32))
    grown = frontier.copy()
    grown.append(bytes(32))
    assert again == grown
    assert frontier.size == size  # the copy is another tree
    assert len(frontier.roots) == size.bit_count()


@pytest.mark.parametrize("raw", [bytes(8) + bytes(32), b"\0" * 7 + b"\1", bytes(9), bytes(7)])
def test_a_frontier_of_damaged_bytes_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="roots of a tree"):
        Frontier.from_bytes(raw)


def test_no_bytes_are_an_empty_frontier() -> None:
    assert Frontier.from_bytes(b"") == Frontier.from_bytes(bytes(8)) == Frontier()
