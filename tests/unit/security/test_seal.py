"""Sealed values open here, whole, in their own place, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.security.errors import SealBroken
from appliance.security.seal import Seal, derive

KEY = b"k" * 32


@given(text=st.text(), context=st.text(max_size=40))
def test_what_was_sealed_opens(text: str, context: str) -> None:
    seal = Seal(KEY)
    sealed = seal.seal(text, context)
    assert seal.open(sealed, context) == text
    assert len(text) < 4 or text.encode() not in sealed


def test_the_same_text_is_never_sealed_alike() -> None:
    seal = Seal(KEY)
    assert len({seal.seal("sk-secret", "dep_1") for _ in range(50)}) == 50


def test_every_changed_byte_is_found() -> None:
    seal = Seal(KEY)
    sealed = seal.seal("sk-secret", "dep_1")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(SealBroken):
            seal.open(bytes(changed), "dep_1")


@pytest.mark.parametrize("length", [0, 1, 5, 12, 13, 20])
def test_what_is_cut_off_does_not_open(length: int) -> None:
    sealed = Seal(KEY).seal("sk-secret", "dep_1")
    with pytest.raises(SealBroken):
        Seal(KEY).open(sealed[:length], "dep_1")


def test_another_place_or_another_key_does_not_open() -> None:
    sealed = Seal(KEY).seal("sk-secret", "dep_1")
    with pytest.raises(SealBroken) as caught:
        Seal(KEY).open(sealed, "dep_2")
    assert "dep_2" in caught.value.message
    assert "sk-secret" not in str(caught.value)
    with pytest.raises(SealBroken):
        Seal(b"other" + b"k" * 27).open(sealed, "dep_1")


def test_derived_values_differ_by_all_three() -> None:
    values = {
        derive(secret, purpose, text)
        for secret in (b"a", b"b")
        for purpose in ("salt", "other")
        for text in ("x", "y")
    }
    assert len(values) == 8
    assert all(len(value) == 32 for value in values)
    assert derive(b"a", "salt", "x") == derive(b"a", "salt", "x")
