"""Random bytes that are read ahead."""

import random

from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.ids import EntropyPool, new_id


class Source:
    """Random bytes that are remembered."""

    def __init__(self) -> None:
        self.given: list[bytes] = []
        self._random = random.Random(1)

    def __call__(self, size: int) -> bytes:
        self.given.append(self._random.randbytes(size))
        return self.given[-1]


@given(st.lists(st.integers(8, 9_000), max_size=30))
def test_pieces_have_their_size_and_never_overlap(sizes: list[int]) -> None:
    source = Source()
    pool = EntropyPool(source)
    pieces = [pool.take(size) for size in sizes]
    assert [len(piece) for piece in pieces] == sizes
    stream = b"".join(source.given)
    at = 0
    for piece in pieces:
        at = stream.index(piece, at) + len(piece)


def test_many_identifiers_cost_one_read() -> None:
    source = Source()
    pool = EntropyPool(source)
    assert len({new_id("tenant", pool.take) for _ in range(300)}) == 300
    assert len(source.given) == 1


def test_by_default_the_kernel_is_the_source() -> None:
    assert EntropyPool().take(32) != EntropyPool().take(32)
