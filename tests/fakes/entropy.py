"""Randomness that is the same in every run."""

import random


class SeededEntropy:
    """`os.urandom` for tests: `entropy(n)` gives n bytes that follow from the seed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def __call__(self, count: int) -> bytes:
        return self._random.randbytes(count)
