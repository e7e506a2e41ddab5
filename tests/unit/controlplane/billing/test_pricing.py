"""Prices by hour, exact amounts, and the books after any sequence of what can happen."""

from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from appliance.controlplane.billing import holds, journal, price_book
from appliance.controlplane.billing.billing_errors import BadPriceBook, Unbalanced
from appliance.controlplane.billing.charging import identity
from appliance.controlplane.billing.credits import grant
from appliance.controlplane.billing.journal import Entry
from appliance.controlplane.billing.outbox_table import OUTBOX
from appliance.controlplane.billing.price_book import BookFile, PriceLine, RegionLine, read_file
from appliance.controlplane.billing.pricing import (
    NO_BOOK,
    History,
    Rate,
    Tokens,
    amount_micros,
    first_of,
    month_start_s,
    next_month_s,
)
from appliance.controlplane.billing.usage_table import USAGE
from appliance.controlplane.database import Database
from appliance.controlplane.migration import migrate
from appliance.manifests.codes import Code
from tests.fakes.billing import ALICE, BOB, BOOK, HOUR, HOUR_S, NOW_NS, Office, line

COUNTS = st.integers(0, 10**12)


@given(
    quantity=st.integers(-(10**15), 10**15),
    price=st.integers(0, 10**13),
    multiplier=st.integers(0, 10**6),
)
def test_an_amount_is_exact_and_rounded_once_half_to_even(
    quantity: int, price: int, multiplier: int
) -> None:
    exact = Decimal(quantity) * price * multiplier / Decimal(10**10)
    whole = exact.quantize(Decimal(1), rounding=ROUND_HALF_EVEN)
    assert amount_micros(quantity, Rate(price, multiplier)) == int(whole)


@pytest.mark.parametrize(
    ("quantity", "micros"), [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2)]
)
def test_the_half_micro_goes_to_the_even_neighbour(quantity: int, micros: int) -> None:
    assert amount_micros(quantity, Rate(500_000, 10_000)) == micros


@given(tokens=st.tuples(COUNTS, COUNTS, COUNTS), allowance=st.integers(-5, 10**13))
def test_an_allowance_covers_neither_more_than_it_has_nor_than_was_used(
    tokens: tuple[int, int, int], allowance: int
) -> None:
    used = Tokens(*tokens)
    free = first_of(used, allowance)
    assert free.total == min(used.total, max(0, allowance))
    assert all(0 <= part <= of for part, of in zip(free, used, strict=True))


def test_a_value_counts_from_its_hour() -> None:
    history = History([(200, 2), (100, 1)])
    assert [history.at(hour) for hour in (99, 100, 199, 200, 10**9)] == [None, 1, 1, 2, 2]


def test_months_begin_and_end_in_utc_also_in_leap_years() -> None:
    leap_day = 1_709_164_800  # 2024-02-29T00:00:00Z
    assert month_start_s(leap_day) == leap_day - 28 * 86_400
    assert next_month_s(leap_day) == leap_day + 86_400
    new_year = 1_735_689_600  # 2025-01-01T00:00:00Z
    assert next_month_s(new_year - 1) == month_start_s(new_year) == new_year


def test_a_model_of_its_own_comes_before_every_model() -> None:
    assert NO_BOOK.rate("m", "input", "business", "usa", HOUR) is None
    assert not NO_BOOK.has_plan("business")


def test_an_entry_that_leaves_something_cannot_be_made() -> None:
    with pytest.raises(Unbalanced):
        Entry("e", "c", 0, 0, (("a", 1), ("b", -2)))


def test_an_identifier_is_short_and_follows_from_what_it_stands_for() -> None:
    one = identity("apl_1/1/1", "cst_1", "input/m/usa/business", HOUR)
    assert one == identity("apl_1/1/1", "cst_1", "input/m/usa/business", HOUR)
    assert len(f"clx-{one}") <= 100
    others = {
        identity("apl_1/1/2", "cst_1", "input/m/usa/business", HOUR),
        identity("apl_1/1/1", "cst_2", "input/m/usa/business", HOUR),
        identity("apl_1/1/1", "cst_1", "output/m/usa/business", HOUR),
        identity("apl_1/1/1", "cst_1", "input/m/usa/business", HOUR + HOUR_S),
    }
    assert len(others - {one}) == 4


@pytest.mark.parametrize(
    "raw",
    [
        b"currency = 'usd'\nx = 1",
        b"[[prices]]\nmodel = 'm'\nplan = 'a/b'\ninput = 1",
        b"currency = 'usd'\n[[prices]]\nmodel = 'm'\nplan = 'business'\ninput = -1",
        b"currency = 'usd'\n[[prices]]\nmodel = 'm'\nplan = 'business'\ninput = 0.5",
        b"currency = 'usd'\n[[regions]]\nregion = 'eu'\nmultiplier_bp = 9999999",
        b"\xff",
        b"{",
    ],
)
def test_a_file_that_is_no_price_book_is_refused_with_the_place(raw: bytes) -> None:
    with pytest.raises(BadPriceBook):
        read_file(raw, toml=True)
    with pytest.raises(BadPriceBook):
        read_file(raw, toml=False)


def test_a_price_book_of_the_vendor_is_read() -> None:
    raw = b"""
currency = "usd"
free_tokens_per_month = 5
free_since = "2026-11-01T00:00:00Z"

[[prices]]
model = "llama"
plan = "business"
input = 100
output = 200
since = "2026-11-22T19:30:00Z"

[[regions]]
region = "eu"
multiplier_bp = 11000
"""
    book = read_file(raw, toml=True)
    assert book.prices == [PriceLine("llama", "business", 100, None, 200, "2026-11-22T19:30:00Z")]
    assert book.regions == [RegionLine("eu", 11_000)]


def test_the_book_given_to_the_sites_has_every_price_with_its_history(database: Database) -> None:
    office = Office(database, None)
    assert database.read(price_book.document) is None
    assert database.transact(lambda c: price_book.ensure(c, "usd", NOW_NS))
    assert not database.transact(lambda c: price_book.ensure(c, "usd", NOW_NS))
    office.prices(
        BookFile("usd", [PriceLine("llama", "business", 7, since="2027-01-01T00:00:00Z")])
    )
    book = database.read(price_book.document)
    assert book is not None
    assert (book.version, book.currency, book.free_tokens_per_month) == (2, "usd", "1000000")
    assert len(book.prices) == 13
    assert book.prices[-1].since == "2027-01-01T00:00:00.000Z"
    assert {(region.region, region.multiplier_bp) for region in book.regions} == {
        ("india", 7_000),
        ("usa", 10_000),
        ("eu", 11_000),
        ("apac", 9_000),
        ("*", 10_000),
    }
    with pytest.raises(BadPriceBook):
        office.prices(BookFile("eur"))
    with pytest.raises(BadPriceBook):
        office.prices(BookFile("usd", [PriceLine("*", "business", 1)]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return tmp_path_factory.mktemp("books")


LINES = st.builds(
    line,
    st.sampled_from([ALICE, BOB]),
    hour_s=st.integers(0, 1_500).map(lambda hours: HOUR - hours * HOUR_S),
    tokens=st.tuples(st.integers(0, 900), st.integers(0, 90), st.integers(0, 90)),
    region=st.sampled_from(["usa", "eu", "moon"]),
    price_class=st.sampled_from(["serverless", "reserved"]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("post"),
            st.lists(LINES, max_size=4),
            st.sampled_from([(), (Code.CLOCK_FUTURE,)]),
        ),
        st.tuples(
            st.just("map"), st.sampled_from([ALICE, BOB]), st.sampled_from(["free", "business"])
        ),
        st.tuples(st.just("release"), st.none(), st.none()),
        st.tuples(st.just("write off"), st.sampled_from([ALICE, BOB]), st.none()),
        st.tuples(st.just("credit"), st.integers(1, 500), st.none()),
    ),
    max_size=12,
)


@given(steps=STEPS, seed=st.integers(0, 2**62))
@settings(max_examples=40, deadline=None)
def test_whatever_happens_nothing_is_lost_or_doubled(
    folder: Path, steps: list[tuple[str, object, object]], seed: int
) -> None:
    """Posted = free + reserved + held + written off + outbox; every entry adds up to nothing."""
    file = folder / f"{seed}.db"
    file.unlink(missing_ok=True)
    database = Database.open(f"sqlite:///{file}")
    try:
        migrate(database, NOW_NS)
        _play(Office(database, BOOK), steps)
        _check(database)
    finally:
        database.close()
        file.unlink()


def _play(office: Office, steps: list[tuple[str, object, object]]) -> None:
    acme = office.customer("Acme")
    mapped = set()
    for step, first, second in steps:
        if step == "post":
            office.post(*first, holds=second)
        elif step == "map" and first not in mapped:
            mapped.add(first)
            office.map(str(first), acme, str(second))
            office.database.transact(lambda c: holds.recheck(c, NOW_NS))
        elif step == "credit":
            office.database.transact(
                lambda c, micros=first: grant(
                    c,
                    acme,
                    micros=micros,
                    reason="welcome",
                    since_s=0,
                    until_s=None,
                    by="ana",
                    now_ns=NOW_NS,
                    entropy=office.entropy,
                )
            )
        elif step in {"release", "write off"}:
            chosen = holds.Selection(tenant_id=None if first is None else str(first))
            act = holds.release if step == "release" else holds.write_off
            if office.database.read(lambda c, chosen=chosen: holds.list_holds(c, chosen)):
                office.database.transact(
                    lambda c, act=act, chosen=chosen: act(
                        c, chosen, by="ana", reason="looked at", now_ns=NOW_NS
                    )
                )


def _check(database: Database) -> None:
    u = USAGE.c
    used = u.input_tokens + u.cached_tokens + u.output_tokens
    covered = u.free_input + u.free_cached + u.free_output
    covered += u.reserved_input + u.reserved_cached + u.reserved_output
    sums = select(u.state, func.sum(used), func.sum(covered)).group_by(u.state)
    by_state = {
        state: (int(all_), int(part))
        for state, all_, part in database.read(lambda c: c.execute(sums).all())
    }
    billed = by_state.get("billed", (0, 0))
    outbox, amount = database.read(
        lambda c: c.execute(
            select(
                func.coalesce(func.sum(OUTBOX.c.quantity), 0),
                func.coalesce(func.sum(OUTBOX.c.amount_micros), 0),
            )
        ).one()
    )
    assert billed[0] == billed[1] + outbox
    assert all(part == 0 for state, (_, part) in by_state.items() if state != "billed")
    assert database.read(lambda c: list(journal.unbalanced(c))) == []
    assert database.read(lambda c: journal.balance_micros(c, journal.USAGE_REVENUE)) == -amount
