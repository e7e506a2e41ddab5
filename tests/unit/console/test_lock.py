"""The idle lock: when it falls, and what opens it."""

from hypothesis import given
from hypothesis import strategies as st

from console.lock import Lock, problem_with


def lock(after_s: float | None = 60.0, passphrase: str = "open sesame") -> Lock:
    return Lock(after_s, passphrase, entropy=bytes)


def test_it_falls_after_the_time_without_a_key_and_not_before() -> None:
    idle = lock()
    idle.heard(100.0)
    assert not idle.due(159.9)
    idle.heard(159.9)
    assert not idle.due(160.0)
    assert idle.due(219.9)


def test_it_never_falls_by_itself_without_a_time_or_without_a_passphrase() -> None:
    for never in (lock(None), lock(60.0, "")):
        never.heard(0.0)
        assert not never.due(1e9)
    assert not lock(60.0, "").ready


def test_only_the_passphrase_opens_and_wrong_ones_cost_ever_longer() -> None:
    idle = lock()
    assert idle.opens("open sesame", 0.0)
    assert not idle.opens("sesame", 0.0)
    assert idle.wait_s(0.0) == 1.0
    assert not idle.opens("open sesame", 0.5)  # too early, though it is right
    assert not idle.opens("sesame", 1.0)
    assert idle.wait_s(1.0) == 2.0
    assert idle.opens("open sesame", 3.0)
    assert not idle.opens("sesame", 3.0)
    assert idle.wait_s(3.0) == 1.0


def test_the_wait_is_bounded() -> None:
    idle, now_s = lock(), 0.0
    for _ in range(12):
        assert not idle.opens("wrong", now_s)
        assert idle.wait_s(now_s) <= 30.0
        now_s += 30.0
    assert idle.opens("open sesame", now_s)


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_passphrase_is_taken_only_twice_alike_and_long_enough(first: str, again: str) -> None:
    assert (problem_with(first, again) == "") == (first == again and len(first) >= 4)
