"""API keys: their form, their checksum, what is stored of them."""

import hashlib
import hmac
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.security.api_keys import (
    DIGITS,
    checksum,
    digest,
    digester,
    new_key,
    prefix_for_people,
    well_formed,
)
from tests.fakes.entropy import SeededEntropy

KEY_CHARS = 46
seeds = st.integers(0, 2**32)
# What a hand or a bad scanner puts in place of a character; not only digits of keys.
typed = st.sampled_from(DIGITS + "_- oO0lI1é\n")


def test_the_algorithm_is_pinned_by_a_known_key() -> None:
    """Worked by hand from the description: other implementations can check against it."""
    body = "clsk_live_" + "0" * 29 + "1"
    number = zlib.crc32(body.encode())
    by_hand = ""
    for _ in range(6):
        number, rest = divmod(number, 62)
        by_hand = DIGITS[rest] + by_hand
    assert number == 0, "six digits of base 62 hold 32 bits"
    assert new_key(entropy=lambda n: (1).to_bytes(n, "big")) == body + by_hand
    assert body + by_hand == "clsk_live_0000000000000000000000000000011CSJZW"


@pytest.mark.parametrize("prefix", ["clsk_live_", "clsk_test_"])
def test_new_keys_have_the_form(prefix: str) -> None:
    key = new_key(test=prefix == "clsk_test_", entropy=SeededEntropy())
    assert key.startswith(prefix)
    assert len(key) == len(prefix) + 30 + 6
    assert well_formed(key)


def test_keys_use_all_digits_and_differ() -> None:
    keys = {new_key() for _ in range(200)}
    assert len(keys) == 200
    assert set("".join(key[10:40] for key in keys)) == set(DIGITS)


@given(seed=seeds, place=st.integers(0, KEY_CHARS - 1), other=typed)
def test_one_wrong_character_is_refused(seed: int, place: int, other: str) -> None:
    key = new_key(entropy=SeededEntropy(seed))
    mistyped = key[:place] + other + key[place + 1 :]
    assert well_formed(mistyped) == (mistyped == key)


@pytest.mark.parametrize("place", range(KEY_CHARS))
def test_every_digit_in_every_place_is_refused(place: int) -> None:
    key = new_key(entropy=SeededEntropy(place))
    for other in DIGITS:
        mistyped = key[:place] + other + key[place + 1 :]
        assert well_formed(mistyped) == (mistyped == key)


@given(seed=seeds, place=st.integers(0, KEY_CHARS - 2))
def test_swapped_neighbours_are_refused(seed: int, place: int) -> None:
    key = new_key(entropy=SeededEntropy(seed))
    swapped = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    # A swap inside the checksum or across its border is caught because the number differs.
    assert well_formed(swapped) == (swapped == key)


@given(st.text(max_size=60))
def test_arbitrary_text_is_no_key(text: str) -> None:
    assert not well_formed(text)


def test_ends_of_keys_are_ends() -> None:
    key = new_key()
    for wrong in (key + "\n", " " + key, key + "0", key[:-1], "", key.upper(), key.lower()):
        assert not well_formed(wrong)


def test_live_and_test_keys_are_not_each_other() -> None:
    key = new_key(entropy=SeededEntropy(3))
    assert not well_formed(key.replace("clsk_live_", "clsk_test_"))


def test_the_digest_is_hmac_sha256_under_the_pepper() -> None:
    key = new_key()
    expected = hmac.new(b"p" * 32, key.encode(), hashlib.sha256).digest()
    assert digest(b"p" * 32, key) == expected
    assert digest(b"q" * 32, key) != expected


@given(st.binary(min_size=1, max_size=200), st.text(max_size=200))
def test_a_digester_gives_the_same_digests(pepper: bytes, key: str) -> None:
    of_pepper = digester(pepper)
    assert of_pepper(key) == of_pepper(key) == digest(pepper, key)


def test_people_see_a_prefix_that_is_of_no_use() -> None:
    key = new_key(test=True)
    shown = prefix_for_people(key)
    assert shown == key[:14] + "…"
    assert len(key) - 14 == 32  # 26 of the random digits stay hidden: 154 bits


def test_checksums_are_padded() -> None:
    lengths = {len(checksum("clsk_live_" + str(n).rjust(30, "0"))) for n in range(2_000)}
    assert lengths == {6}
