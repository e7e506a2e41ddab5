"""The checker itself: silent for books that agree, and it names each way in which they do not."""

import copy
from collections.abc import Callable

import pytest

from tests.integration.conservation.balance import Books, Recorded, Tokens, balance

PLACE = ("cus_1", "tokens", 3_600)


def sound() -> Books:
    """One answered request, one cut off by a kill, one that never reached the engine."""
    whole, part = Tokens(1, 100, 20, 50), Tokens(1, 40, 0, 10)
    books = Books(
        served={"a": whole, "b": part},
        answered={"a": whole},
        ledger={
            "a": [Recorded("ok", whole)],
            "b": [Recorded("aborted", Tokens(1, 38, 0, 0))],
            "c": [Recorded("aborted", Tokens(1, 5, 0, 0))],
        },
    )
    total = Tokens(3, 143, 20, 50)
    books.manifests = books.cumulative = books.accepted = books.usage = total
    books.held, books.free = 30, 13
    books.outbox = {"accepted": 100, "late": 50}
    books.metered = books.stripe = {PLACE: 100}
    books.late, books.stripe_late = {"k": 50}, {"k": [50]}
    return books


def test_what_was_killed_before_it_was_recorded_is_cut_off() -> None:
    books = sound()
    books.served["e"] = Tokens(1, 7, 0, 0)
    sheet = balance(books)
    assert sheet.wrong == []
    assert dict(sheet.lines)["cut off by a kill (served less what was charged)"] == 14


def test_books_that_agree_are_in_balance() -> None:
    sheet = balance(sound())
    assert sheet.wrong == []
    assert dict(sheet.lines)["cut off by a kill (served less what was charged)"] == 7


def test_what_a_person_has_to_decide_is_explained_if_it_can_be_so() -> None:
    books = sound()
    books.outbox = {"accepted": 60, "ambiguous": 40, "late": 50}
    books.metered, books.ambiguous, books.stripe = {PLACE: 60}, {PLACE: [20, 20]}, {PLACE: 80}
    sheet = balance(books)
    assert sheet.wrong == []
    assert dict(sheet.lines)["ambiguous and not at Stripe: a person decides"] == 20
    books.stripe = {PLACE: 81}
    assert any("21 tokens billed twice" in one for one in balance(books).wrong)


def _twice(books: Books) -> None:
    books.stripe = {PLACE: 200}


def _lost_row(books: Books) -> None:
    books.stripe = {}


def _second_item(books: Books) -> None:
    books.stripe_late = {"k": [50, 50]}


def _unknown_item(books: Books) -> None:
    books.stripe_late = {**books.stripe_late, "other": [1]}


def _record_missing(books: Books) -> None:
    del books.ledger["a"]


def _record_doubled(books: Books) -> None:
    books.ledger["a"] *= 2


def _record_changed(books: Books) -> None:
    books.ledger["a"] = [Recorded("ok", Tokens(1, 100, 20, 51))]


def _answer_aborted(books: Books) -> None:
    books.ledger["a"] = [Recorded("aborted", books.served["a"])]


def _record_invented(books: Books) -> None:
    books.ledger["d"] = [Recorded("ok", Tokens(1, 1, 0, 1))]


def _manifest_lost(books: Books) -> None:
    books.manifests = Tokens(2, 100, 20, 50)


def _posted_twice(books: Books) -> None:
    books.usage += books.usage


def _outbox_short(books: Books) -> None:
    books.outbox = {"accepted": 100}


def _left_over(books: Books) -> None:
    books.outbox = {"accepted": 90, "sending": 10, "late": 50}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_twice, "100 tokens billed twice"),
        (_lost_row, "100 tokens not billed"),
        (_second_item, "late item k: 50 tokens, at Stripe [50, 50]"),
        (_unknown_item, "late item other"),
        (_record_missing, "a was served and is 0 times"),
        (_record_doubled, "a was served and is 2 times"),
        (_record_changed, "a was served"),
        (_answer_aborted, "a was answered in full"),
        (_record_invented, "d is recorded as ok and was never served"),
        (_manifest_lost, "Σ manifests"),
        (_posted_twice, "usage at the control plane"),
        (_outbox_short, "outbox and explained lines"),
        (_left_over, "10 tokens of the outbox are still sending"),
    ],
)
def test_books_that_disagree_are_told(spoil: Callable[[Books], None], said: str) -> None:
    books = copy.deepcopy(sound())
    spoil(books)
    assert any(said in one for one in balance(books).wrong)
