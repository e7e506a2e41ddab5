"""Accepted manifests become usage, outbox rows and entries; nothing doubled, nothing lost."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from appliance.controlplane.billing import holds, journal, price_book, tenants
from appliance.controlplane.billing.billing_errors import (
    AlreadyBilled,
    BadAmount,
    NothingHeld,
    UnknownPlan,
)
from appliance.controlplane.billing.holds import Selection
from appliance.controlplane.billing.outbox_table import OUTBOX
from appliance.controlplane.billing.posting import post_manifest
from appliance.controlplane.billing.price_book import BookFile, PriceLine
from appliance.controlplane.billing.tenants import Party
from appliance.controlplane.billing.usage_table import HOLDS, USAGE
from appliance.controlplane.database import Database
from appliance.controlplane.site_tables import OPERATOR_AUDIT
from appliance.manifests.codes import Code
from tests.fakes.billing import ALICE, BOB, BOOK, HOUR, HOUR_S, NOW_NS, SITE, Office, line, manifest


@pytest.fixture
def office(database: Database) -> Office:
    return Office(database)


def outbox(database: Database) -> list[Any]:
    query = select(OUTBOX).order_by(OUTBOX.c.customer_id, OUTBOX.c.hour_s, OUTBOX.c.meter)
    return database.read(lambda c: list(c.execute(query)))


def usage(database: Database) -> list[Any]:
    query = select(USAGE).order_by(USAGE.c.seq, USAGE.c.part)
    return database.read(lambda c: list(c.execute(query)))


def open_codes(database: Database) -> set[str]:
    query = select(HOLDS.c.code).where(HOLDS.c.state == "open")
    return set(database.read(lambda c: c.execute(query).scalars().all()))


def owed(database: Database, customer: str) -> int:
    return database.read(lambda c: journal.balance_micros(c, journal.receivable(customer)))


def balanced(database: Database) -> bool:
    return database.read(lambda c: not list(journal.unbalanced(c)))


def recheck(database: Database) -> holds.Released:
    return database.transact(lambda c: holds.recheck(c, NOW_NS))


def test_usage_of_a_mapped_tenant_is_priced_by_kind_region_and_plan(office: Office) -> None:
    acme = office.customer("Acme")
    office.map(ALICE, acme)
    assert office.post(line(tokens=(1_000, 500, 200), region="eu")) == ()
    rows = outbox(office.database)
    assert [(row.kind, row.quantity, row.amount_micros) for row in rows] == [
        ("cached", 500, 188),  # 187.5, half to even
        ("input", 1_000, 750),
        ("output", 200, 300),
    ]
    assert {row.meter for row in rows} == {
        f"{kind}/llama/eu/business" for kind in ("input", "cached", "output")
    }
    assert all(row.state == "pending" and len(row.identifier) <= 100 for row in rows)
    assert owed(office.database, acme) == 188 + 750 + 300
    assert balanced(office.database)


def test_keys_environments_and_tenants_of_a_customer_share_a_row(office: Office) -> None:
    acme = office.customer("Acme")
    office.map("*", acme)
    office.post(line(key="1"), line(key="2"), line(BOB))
    rows = outbox(office.database)
    assert [(row.kind, row.quantity) for row in rows] == [("input", 300), ("output", 30)]
    assert [(row.tenant_id, row.requests) for row in usage(office.database)] == [
        (ALICE, 2),
        (BOB, 1),
    ]


def test_the_same_manifest_is_never_posted_twice(office: Office) -> None:
    office.map(ALICE, office.customer("Acme"))
    office.post(line())
    before = outbox(office.database)
    again = manifest(1, [line()])
    with pytest.raises(IntegrityError):
        office.database.transact(lambda c: post_manifest(c, again, NOW_NS))
    assert outbox(office.database) == before


def test_an_unmapped_tenant_is_held_and_released_by_its_mapping_once(office: Office) -> None:
    acme = office.customer("Acme")
    assert office.post(line(), line(hour_s=HOUR + HOUR_S)) == (Code.TENANT_UNMAPPED,)
    assert outbox(office.database) == []
    assert open_codes(office.database) == {"TENANT_UNMAPPED"}

    def map_and_release(connection: Any) -> holds.Released:
        party = Party(acme, "business")
        tenants.map_tenant(connection, SITE, ALICE, party, since_s=0, by="test", now_ns=NOW_NS)
        return holds.recheck(connection, NOW_NS)

    assert office.database.transact(map_and_release).billed == 2
    assert sum(row.quantity for row in outbox(office.database)) == 220
    assert recheck(office.database) == holds.Released(0, 0, 0)
    assert sum(row.quantity for row in outbox(office.database)) == 220
    assert {row.state for row in usage(office.database)} == {"billed"}


def test_two_tenants_of_one_manifest_mapped_one_after_the_other(office: Office) -> None:
    """The rows of the second have the customer, meter, hour and manifest of the first."""
    acme = office.customer("Acme")
    office.map(ALICE, acme)
    office.post(line(), line(BOB))
    office.map(BOB, acme)
    assert recheck(office.database).billed == 1
    assert sum(row.quantity for row in outbox(office.database)) == 220
    assert owed(office.database, acme) == 2 * (100 + 20)


def at_once(runs: list[Callable[[], None]]) -> None:
    """Run each on a thread, all from the same moment; what one raises is raised."""
    barrier = threading.Barrier(len(runs))

    def start(run: Callable[[], None]) -> None:
        barrier.wait()
        run()

    with ThreadPoolExecutor(len(runs)) as pool:
        for done in [pool.submit(start, run) for run in runs]:
            done.result()


@pytest.fixture
def others(tables_url: str) -> Iterator[list[Database]]:
    """The same database, opened three times more, as by other processes."""
    opened = [Database.open(tables_url) for _ in range(3)]
    yield opened
    for one in opened:
        one.close()


def test_releases_at_once_bill_once(office: Office, others: list[Database]) -> None:
    office.post(*(line(hour_s=HOUR - hour * HOUR_S) for hour in range(20)))
    office.map(ALICE, office.customer("Acme"))
    billed: list[int] = []

    def release(database: Database) -> None:
        billed.append(recheck(database).billed)

    at_once([partial(release, one) for one in (office.database, *others)])
    assert sorted(billed) == [0, 0, 0, 20]
    assert sum(row.quantity for row in outbox(office.database)) == 20 * 110


def test_usage_that_comes_while_its_tenant_is_mapped_is_billed(
    office: Office, others: list[Database]
) -> None:
    """Neither does ingest miss the mapping and the release miss the usage."""
    acme = office.customer("Acme")

    def post(database: Database, first: int) -> None:
        for seq in range(first, first + 8):
            accepted = manifest(seq, [line()])
            database.transact(lambda c, accepted=accepted: post_manifest(c, accepted, NOW_NS))

    def map_and_release() -> None:
        def run(connection: Any) -> None:
            party = Party(acme, "business")
            tenants.map_tenant(connection, SITE, ALICE, party, since_s=0, by="ana", now_ns=NOW_NS)
            holds.recheck(connection, NOW_NS)

        others[2].transact(run)

    at_once([partial(post, others[0], 1), partial(post, others[1], 100), map_and_release])
    assert open_codes(office.database) == set()
    assert sum(row.quantity for row in outbox(office.database)) == 16 * 110
    assert balanced(office.database)


def test_a_doubtful_clock_waits_for_a_person_with_a_reason(office: Office) -> None:
    acme = office.customer("Acme")
    office.map(ALICE, acme)
    office.post(line(), holds=(Code.CLOCK_FUTURE,))
    assert recheck(office.database) == holds.Released(0, 0, 1)
    assert outbox(office.database) == []

    def decide(reason: str, code: str = "CLOCK_FUTURE") -> holds.Released:
        chosen = Selection(appliance_id=SITE, code=code)
        return office.database.transact(
            lambda c: holds.release(c, chosen, by="ana", reason=reason, now_ns=NOW_NS)
        )

    with pytest.raises(BadAmount):
        decide(" ")
    with pytest.raises(NothingHeld):
        decide("why", "CLOCK_REGRESSION")
    assert decide("the clock was set by hand").billed == 1
    assert owed(office.database, acme) == 120
    with pytest.raises(NothingHeld):
        decide("again")
    acts = office.database.read(lambda c: c.execute(select(OPERATOR_AUDIT)).all())
    assert [(act.actor, act.action) for act in acts] == [("ana", "release")]
    assert "by hand" in acts[0].after


def test_a_release_does_not_replace_a_mapping(office: Office) -> None:
    office.post(line(), holds=(Code.COUNTER_REGRESSION,))
    chosen = Selection()
    done = office.database.transact(
        lambda c: holds.release(c, chosen, by="ana", reason="seen", now_ns=NOW_NS)
    )
    assert done == holds.Released(0, 0, 1)
    assert open_codes(office.database) == {"TENANT_UNMAPPED"}
    office.map(ALICE, office.customer("Acme"))
    assert recheck(office.database).billed == 1


def test_written_off_usage_is_never_billed(office: Office) -> None:
    office.post(line())
    done = office.database.transact(
        lambda c: holds.write_off(c, Selection(), by="ana", reason="a test site", now_ns=NOW_NS)
    )
    assert done.written_off == 1
    office.map(ALICE, office.customer("Acme"))
    assert recheck(office.database) == holds.Released(0, 0, 0)
    assert outbox(office.database) == []
    assert usage(office.database)[0].state == "written_off"


def test_usage_without_a_price_is_held_until_there_is_one(database: Database) -> None:
    office = Office(
        database, BookFile("usd", [PriceLine("other", "business", 1, 1, 1)], BOOK.regions)
    )
    acme = office.customer("Acme")
    office.map(ALICE, acme)
    assert office.post(line()) == ()
    assert open_codes(database) == {"PRICE_MISSING"}
    assert recheck(database).billed == 0
    office.prices(BOOK)
    assert recheck(database).billed == 1
    assert owed(database, acme) == 120


def test_a_region_without_a_multiplier_is_not_taken_for_a_neutral_one(office: Office) -> None:
    office.map(ALICE, office.customer("Acme"))
    office.post(line(region="moon"))
    assert open_codes(office.database) == {"PRICE_MISSING"}


def test_a_price_counts_from_its_hour_and_changes_nothing_that_is_billed(office: Office) -> None:
    acme = office.customer("Acme")
    office.map(ALICE, acme)
    office.post(line(), line(hour_s=HOUR + HOUR_S))
    with pytest.raises(AlreadyBilled):
        office.prices(
            BookFile("usd", [PriceLine("llama", "business", 7, since="2026-11-22T20:00:00Z")])
        )
    dearer = PriceLine("llama", "business", 3_000_000, since="2026-11-22T21:00:00Z")
    assert office.prices(BookFile("usd", [dearer])) == 2
    assert office.prices(BookFile("usd", [dearer])) == 2
    office.post(line(tokens=(100, 0, 0)), line(hour_s=HOUR + 2 * HOUR_S, tokens=(100, 0, 0)))
    amounts = [(row.hour_s, row.amount_micros) for row in outbox(office.database)]
    assert sorted(amounts)[-1] == (HOUR + 2 * HOUR_S, 300)
    assert amounts.count((HOUR, 100)) == 2


def test_a_book_that_was_rolled_back_is_forgotten(office: Office) -> None:
    """Another book then has its number, on the same connections."""
    acme = office.customer("Acme")
    office.map(ALICE, acme)
    since = "2026-11-22T20:00:00Z"
    later = line(hour_s=HOUR + HOUR_S, tokens=(100, 0, 0))

    def install_and_fail(connection: Any) -> None:
        file = BookFile("usd", [PriceLine("llama", "business", 9_000_000, since=since)])
        price_book.install(connection, file, currency="usd", by="ana", now_ns=NOW_NS)
        assert price_book.current(connection).version == 2
        raise BadAmount("something else went wrong")

    with pytest.raises(BadAmount):
        office.database.transact(install_and_fail)
    assert (
        office.prices(BookFile("usd", [PriceLine("llama", "business", 3_000_000, since=since)]))
        == 2
    )
    office.post(later)
    assert [row.amount_micros for row in outbox(office.database)] == [300]


def test_the_free_plan_has_an_allowance_a_month_and_pays_the_rest(office: Office) -> None:
    acme = office.customer("Acme")
    office.map("*", acme, plan="free")
    december = HOUR + 10 * 24 * HOUR_S
    office.post(line(tokens=(600, 100, 100)), line(hour_s=december, tokens=(900, 0, 0)))
    assert outbox(office.database) == []
    office.post(line(BOB, tokens=(150, 100, 50)))
    last = usage(office.database)[-1]
    assert (last.free_input, last.free_cached, last.free_output) == (150, 50, 0)
    assert [(row.kind, row.quantity) for row in outbox(office.database)] == [
        ("cached", 50),
        ("output", 50),
    ]
    office.post(line(hour_s=december, tokens=(101, 0, 0)))
    assert outbox(office.database)[-1].quantity == 1
    assert owed(office.database, acme) == 25 + 100 + 1


def test_a_change_of_plan_counts_from_its_hour(office: Office) -> None:
    acme = office.customer("Acme")
    office.map(ALICE, acme, plan="free")
    office.post(line())
    office.map(ALICE, acme, plan="business", since_s=HOUR + HOUR_S)
    office.post(line(), line(hour_s=HOUR + HOUR_S))
    assert [(row.plan, row.hour_s) for row in outbox(office.database)] == [
        ("business", HOUR + HOUR_S)
    ] * 2
    with pytest.raises(AlreadyBilled):
        office.map(ALICE, acme, plan="business", since_s=HOUR)
    with pytest.raises(UnknownPlan):
        office.map(ALICE, acme, plan="gold")
    assert [row.plan for row in usage(office.database)] == ["free", "free", "business"]
