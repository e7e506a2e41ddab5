"""Answers kept for those who ask again."""

import pytest

from appliance.domain.ids import KeyId
from appliance.gateway import idempotency
from appliance.gateway.errors import BadRequest, IdempotencyInProgress, IdempotencyMismatch
from appliance.gateway.idempotency import KEPT_S, Idempotency, Kept

OWNER = KeyId("key_1")
ANSWER = Kept(200, b"application/json", b"{}", b"")


def begin(kept, key="k", body=b"x", now_s=0.0, owner=OWNER):
    return kept.begin(owner, key, "/v1/x", body, now_s)


def test_the_same_again():
    kept = Idempotency()
    assert begin(kept) is None
    with pytest.raises(IdempotencyInProgress):
        begin(kept)
    kept.end(OWNER, "k", ANSWER)
    assert begin(kept) == ANSWER
    assert begin(kept, owner=KeyId("key_2")) is None
    with pytest.raises(IdempotencyMismatch):
        begin(kept, body=b"y")


def test_a_failure_may_be_tried_again():
    kept = Idempotency()
    begin(kept)
    kept.end(OWNER, "k", None)
    assert begin(kept, body=b"y") is None


def test_a_day_later_it_is_forgotten():
    kept = Idempotency()
    begin(kept)
    kept.end(OWNER, "k", ANSWER)
    assert begin(kept, now_s=KEPT_S - 1.0) == ANSWER
    assert begin(kept, now_s=KEPT_S + 0.0) is None


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(idempotency, "KEPT_BYTES_MAX", 100_000)
    kept = Idempotency()
    large = Kept(200, b"application/json", b"x" * 10_000, b"")
    for number in range(100):
        begin(kept, str(number))
        kept.end(OWNER, str(number), large)
    assert begin(kept, "0") is None
    assert begin(kept, "99") == large


def test_what_still_runs_is_not_forgotten(monkeypatch):
    monkeypatch.setattr(idempotency, "KEYS_MAX", 3)
    kept = Idempotency()
    for key in "abcdef":
        begin(kept, key)
    for key in "abcdef":
        with pytest.raises(IdempotencyInProgress):
            begin(kept, key)
    for key in "abcdef":
        kept.end(OWNER, key, ANSWER)


def test_an_answer_too_large_to_keep():
    kept = Idempotency()
    begin(kept)
    kept.end(OWNER, "k", Kept(200, b"", b"x" * (idempotency.ANSWER_BYTES_MAX + 1), b""))
    assert begin(kept) is None


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x00b"])
def test_a_key_that_is_none(key):
    with pytest.raises(BadRequest):
        begin(Idempotency(), key)
