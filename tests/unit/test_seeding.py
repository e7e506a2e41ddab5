"""After a start the limits know what the ledger knows, and forget it in time."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.domain.usage import TokenCount
from appliance.limits.memory import MemoryLimitStore, Used
from appliance.metering.book import Book
from appliance.metering.reader import LedgerReader
from appliance.metering.schema import MIGRATIONS
from appliance.seeding import seed_limits
from appliance.storage.database import connect, migrate
from tests.fakes.clock import START_NS, ManualClock
from tests.fakes.ledger_items import opening, settlement

DAY_S = 86_400
SCOPES = ("global", "ten_1", "env_1", "key_1")


def seeded(
    folder: Path, ages_s: list[float], clock: ManualClock, price_class: str = "serverless"
) -> MemoryLimitStore:
    """A store that was filled from a ledger with a record of 10 tokens of each of these ages."""
    file = folder / "ledger.db"
    file.unlink(missing_ok=True)
    migrate(file, MIGRATIONS)
    with contextlib.closing(connect(file)) as connection:
        connection.row_factory = None
        book = Book(connection)
        connection.execute("BEGIN")
        settled = [clock.wall_ns() - round(age_s * 1_000_000_000) for age_s in sorted(ages_s)[::-1]]
        items = [
            settlement(
                opening(number, price_class=price_class),
                tokens=TokenCount(7, 3, 0),
                settled_at_ns=at_ns,
            )
            for number, at_ns in enumerate(settled, 1)
        ]
        book.apply(connection, items)
        connection.execute("COMMIT")
    limits = MemoryLimitStore()
    seed_limits(limits, LedgerReader(file), clock)
    return limits


def test_each_layer_knows_its_minute_and_its_day(tmp_path: Path) -> None:
    clock = ManualClock(START_NS + 123_456_789_012)
    limits = seeded(tmp_path, [5, 40, 400, 7_200, 90_000], clock)
    for scope in SCOPES:
        assert limits.used(scope, clock.monotonic_s()) == Used(2, 20, 40, 0)
    clock.turn(25)
    assert limits.used("key_1", clock.monotonic_s()) == Used(1, 10, 40, 0)
    clock.turn(DAY_S)
    assert limits.used("key_1", clock.monotonic_s()) == Used()


def test_what_ran_within_a_promise_is_not_in_the_global_layer(tmp_path: Path) -> None:
    clock = ManualClock(START_NS + 123_456_789_012)
    limits = seeded(tmp_path, [5, 400], clock, "reserved")
    assert limits.used("global", clock.monotonic_s()) == Used()
    assert limits.used("ten_1", clock.monotonic_s()) == Used(1, 10, 20, 0)


@settings(max_examples=25, deadline=None)
@given(
    ages_s=st.lists(st.one_of(st.floats(0, 90), st.floats(0, 87_000)), min_size=1, max_size=20),
    started_s=st.integers(0, 600),
)
def test_nothing_is_forgotten_too_early(
    tmp_path_factory: pytest.TempPathFactory, ages_s: list[float], started_s: int
) -> None:
    clock = ManualClock(START_NS + started_s * 1_000_000_000)
    limits = seeded(tmp_path_factory.getbasetemp(), ages_s, clock)
    used = limits.used("key_1", clock.monotonic_s())
    assert used.tokens_per_min >= 10 * sum(age_s < 60 for age_s in ages_s)
    assert used.tokens_per_day >= 10 * sum(age_s < DAY_S for age_s in ages_s)
    assert used.tokens_per_day <= 10 * sum(age_s < DAY_S + 600 for age_s in ages_s)
