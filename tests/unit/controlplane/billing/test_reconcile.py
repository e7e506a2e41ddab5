"""The reconciliation: drift 0 or explained, and whatever somebody changed is found."""

import csv
import io
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from appliance.controlplane.billing import capacity, focus, holds
from appliance.controlplane.billing.adjustments import Correction, adjust
from appliance.controlplane.billing.billing_errors import BadAmount
from appliance.controlplane.billing.credits import grant, list_credits
from appliance.controlplane.billing.journal import LINES, balance_micros, receivable
from appliance.controlplane.billing.outbox_table import OUTBOX, OutboxState
from appliance.controlplane.billing.reconcile import Question, Report, report
from appliance.controlplane.billing.reconcile_table import COLUMNS, as_object, csv_text
from appliance.controlplane.billing.reconciliation import Cause, Figures, judge
from appliance.controlplane.billing.usage_table import HOLDS, USAGE
from appliance.controlplane.database import Database
from appliance.controlplane.examined import pack, unpack
from appliance.controlplane.payments.stripe_facts import keep_reading
from appliance.controlplane.site_tables import MANIFESTS, SITE_KEYS
from appliance.manifests.codes import Code
from appliance.manifests.documents import Line
from tests.fakes.billing import ALICE, BOB, HOUR, HOUR_S, NOW_NS, SITE, Office, line, store_signed
from tests.fakes.sites import signing_key

ALL = Question(0, 2**33)


class Books(Office):
    """An office that also stores the manifests, as ingest does."""

    def post(self, *lines: Line, holds: tuple[Code, ...] = ()) -> tuple[Code, ...]:
        codes = super().post(*lines, holds=holds)
        self.database.transact(lambda c: store_signed(c, self.seq, lines, holds))
        return codes

    def report(self, question: Question = ALL) -> Report:
        return self.database.read(lambda c: report(c, question, currency="usd", now_ns=NOW_NS))

    def deliver(self) -> None:
        """Stripe takes everything that waits, and shows it."""

        def run(connection: Any) -> None:
            rows = connection.execute(select(OUTBOX).where(OUTBOX.c.state == "pending")).all()
            sums: dict[tuple[str, str, int], int] = {}
            for row in connection.execute(select(OUTBOX)).all():
                key = (row.customer_id, row.meter, row.hour_s)
                sums[key] = sums.get(key, 0) + row.quantity
            for row in rows:
                connection.execute(
                    update(OUTBOX)
                    .where(OUTBOX.c.row_id == row.row_id)
                    .values(state="accepted", settled_at_ns=NOW_NS)
                )
            for (customer, meter, hour_s), quantity in sums.items():
                keep_reading(connection, customer, meter, meter, hour_s, quantity, NOW_NS)

        self.database.transact(run)

    def change(self, statement: Any) -> None:
        self.database.transact(lambda c: c.execute(statement))


@pytest.fixture
def books(database: Database) -> Books:
    return Books(database)


def test_everything_delivered_has_no_drift(books: Books) -> None:
    books.map("*", books.customer("Acme"))
    books.post(line(tokens=(100, 50, 10)), line(BOB, hour_s=HOUR + HOUR_S))
    before = books.report()
    assert before.sound
    assert before.total.signed == before.total.outbox == before.total.waiting == 270
    assert before.total.drift == 0
    assert before.total.cause == "pending"
    books.deliver()
    after = books.report()
    assert (after.total.stripe, after.total.drift, after.total.cause) == (270, 0, "")
    assert [row.customer for row in after.rows] == ["Acme"] * 5
    assert [row.hour for row in after.rows][-1] == "2026-11-22T20:00:00.000Z"


def test_free_held_written_off_and_adjusted_are_explained(books: Books) -> None:
    acme = books.customer("Acme")
    books.map(ALICE, acme, plan="free")
    books.post(line(tokens=(990, 0, 20)), line(BOB, tokens=(7, 0, 0)))
    books.post(line(tokens=(5, 0, 0)), holds=(Code.CLOCK_REGRESSION,))
    chosen = holds.Selection(code="CLOCK_REGRESSION")
    books.database.transact(
        lambda c: holds.write_off(c, chosen, by="ana", reason="test", now_ns=NOW_NS)
    )
    correction = Correction(acme, "input", "llama", "usa", "free", HOUR, 30)
    books.database.transact(
        lambda c: adjust(
            c, correction, reason="lost", by="ana", now_ns=NOW_NS, entropy=books.entropy
        )
    )
    books.deliver()
    found = books.report()
    total = found.total
    assert found.sound, found
    assert (total.signed, total.free, total.held, total.written_off) == (1_022, 1_000, 7, 5)
    assert (total.adjusted, total.outbox, total.stripe, total.drift) == (30, 40, 40, 0)
    assert set(total.cause.split()) == {"free", "held", "written_off", "adjusted"}
    only = books.report(Question(0, 2**33, customer_id=acme))
    assert (only.total.held, only.sound) == (0, True)


@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        (update(USAGE).values(input_tokens=USAGE.c.input_tokens + 1), Cause.LEDGER_DIFFERS),
        (USAGE.delete(), Cause.LEDGER_DIFFERS),
        (OUTBOX.delete(), Cause.OUTBOX_DIFFERS),
        (update(OUTBOX).values(quantity=OUTBOX.c.quantity - 1), Cause.OUTBOX_DIFFERS),
        (update(USAGE).values(free_output=1), Cause.OUTBOX_DIFFERS),
    ],
)
def test_a_changed_row_is_found(books: Books, statement: Any, cause: Cause) -> None:
    books.map(ALICE, books.customer("Acme"))
    books.post(line())
    assert books.report().sound
    books.change(statement)
    found = books.report()
    assert not found.sound
    assert cause in found.total.cause.split()
    assert found.total.drift != 0 or found.problems


def test_tokens_moved_between_tenants_are_found(books: Books) -> None:
    books.map("*", books.customer("Acme"))
    books.post(line(tokens=(100, 0, 0)), line(BOB, tokens=(100, 0, 0)))
    step = {ALICE: 1, BOB: -1}
    for tenant, by in step.items():
        books.change(
            update(USAGE)
            .where(USAGE.c.tenant_id == tenant)
            .values(input_tokens=USAGE.c.input_tokens + by)
        )
    found = books.report()
    assert found.total.drift == 0
    assert not found.sound
    assert len(found.problems) == 2


def test_invented_usage_is_found(books: Books) -> None:
    books.map(ALICE, books.customer("Acme"))
    Office.post(books, line())  # without its manifest
    found = books.report()
    assert not found.sound
    assert sum(row.drift for row in found.rows) == -110


def _fewer_tokens(connection: Any) -> None:
    """Lines, usage and outbox say the same: less than what was signed."""
    row = connection.execute(select(MANIFESTS).where(MANIFESTS.c.seq == 1)).one()
    fewer = unpack(row.lines).replace(b'"output_tokens":"10"', b'"output_tokens":"9"')
    connection.execute(update(MANIFESTS).where(MANIFESTS.c.seq == 1).values(lines=pack(fewer)))
    connection.execute(update(USAGE).where(USAGE.c.seq == 1).values(output_tokens=9))
    least = select(OUTBOX.c.row_id).where(OUTBOX.c.kind == "output").limit(1).scalar_subquery()
    connection.execute(update(OUTBOX).where(OUTBOX.c.row_id == least).values(quantity=9))


def _no_lines(connection: Any) -> None:
    connection.execute(update(MANIFESTS).where(MANIFESTS.c.seq == 1).values(lines=b"no zlib"))


def _no_envelope(connection: Any) -> None:
    connection.execute(update(MANIFESTS).where(MANIFESTS.c.seq == 1).values(envelope=b"{}"))


def _another_hash(connection: Any) -> None:
    connection.execute(update(MANIFESTS).where(MANIFESTS.c.seq == 2).values(sha256="0" * 64))


def _another_key(connection: Any) -> None:
    key = signing_key(2).public
    connection.execute(update(SITE_KEYS).values(key_id=key.key_id, pem=key.pem))


def _left_out(connection: Any) -> None:
    connection.execute(MANIFESTS.delete().where(MANIFESTS.c.seq == 2))
    connection.execute(USAGE.delete().where(USAGE.c.seq == 2))


@pytest.mark.parametrize(
    "tamper", [_fewer_tokens, _no_lines, _no_envelope, _another_hash, _another_key, _left_out]
)
def test_a_manifest_that_is_not_as_it_was_signed_is_found(books: Books, tamper: Any) -> None:
    books.map(ALICE, books.customer("Acme"))
    books.post(line())
    books.post(line(hour_s=HOUR + HOUR_S))
    assert books.report().sound
    books.database.transact(tamper)
    found = books.report()
    assert not found.sound
    assert any("manifest" in problem and SITE in problem for problem in found.problems)


def test_what_a_revoked_key_signed_before_stands(books: Books) -> None:
    books.map(ALICE, books.customer("Acme"))
    books.post(line())
    books.change(update(SITE_KEYS).values(revoked_epoch=1, revoked_seq=2))
    assert books.report().sound


def test_an_unbalanced_journal_and_lost_revenue_are_found(books: Books) -> None:
    books.map(ALICE, books.customer("Acme"))
    books.post(line())
    books.change(
        update(LINES)
        .where(LINES.c.account == "revenue/usage")
        .values(amount_micros=LINES.c.amount_micros + 1)
    )
    assert len(books.report().problems) == 2


def test_a_price_that_the_book_does_not_have_is_found(books: Books) -> None:
    books.map(ALICE, books.customer("Acme"))
    books.post(line())
    books.change(update(OUTBOX).values(micros_per_million=OUTBOX.c.micros_per_million - 1))
    assert len(books.report().problems) == 2


def test_stripe_that_lags_is_explained_and_stripe_that_has_more_is_not(books: Books) -> None:
    books.map(ALICE, books.customer("Acme"))
    books.post(line(tokens=(100, 0, 0)))
    books.change(update(OUTBOX).values(state="accepted", settled_at_ns=NOW_NS))
    unread = books.report()
    assert (unread.total.drift, unread.total.cause, unread.sound) == (100, "stripe_not_read", True)
    row = unread.rows[0]

    def read(quantity: int, at_ns: int = NOW_NS) -> Report:
        books.database.transact(
            lambda c: keep_reading(c, row.customer_id, row.meter, "e", HOUR, quantity, at_ns)
        )
        return books.report()

    lagging = read(60)
    assert (lagging.total.drift, lagging.total.cause, lagging.sound) == (40, "stripe_lags", True)
    more = read(101)
    assert (more.rows[0].drift, more.total.cause, more.sound) == (-1, "STRIPE_HAS_MORE", False)
    day_ns = 25 * HOUR_S * 1_000_000_000
    books.change(update(OUTBOX).values(settled_at_ns=NOW_NS - 2 * day_ns))
    less = read(99)
    assert (less.total.drift, less.total.cause, less.sound) == (1, "STRIPE_HAS_LESS", False)
    assert read(100).total.cause == ""


def test_a_site_alone_is_compared_without_stripe(books: Books) -> None:
    books.map(ALICE, books.customer("Acme"))
    books.post(line())
    books.change(update(OUTBOX).values(state="accepted", settled_at_ns=NOW_NS))
    found = books.report(Question(0, 2**33, site=SITE))
    assert (found.sound, found.total.drift, found.total.signed) == (True, 0, 110)
    assert books.report(Question(0, 2**33, site="apl_other")).rows == []


@given(
    signed=st.integers(0, 10**6),
    free=st.integers(0, 10**6),
    states=st.dictionaries(st.sampled_from([s.value for s in OutboxState]), st.integers(1, 10**6)),
    stripe=st.none() | st.integers(0, 10**6),
)
@settings(max_examples=200, deadline=None)
def test_what_is_left_unexplained_is_the_drift(
    signed: int, free: int, states: dict[str, int], stripe: int | None
) -> None:
    figures = Figures(signed=signed, ledger=signed, free=free, states=states, stripe=stripe)
    row = judge("c", "C", "m", "h", figures)
    left = row.signed - row.free - row.cancelled - row.waiting - (row.stripe or 0) - row.invoiced
    assert row.drift == left
    assert row.explained or row.drift != 0 or sum(states.values()) != signed - free


def test_corrections_are_rows_and_credits(books: Books) -> None:
    acme = books.customer("Acme")
    books.map(ALICE, acme)
    books.post(line(tokens=(100, 0, 0)))

    def correct(quantity: int, reason: str = "counted twice") -> None:
        wrong = Correction(acme, "input", "llama", "usa", "business", HOUR, quantity)
        books.database.transact(
            lambda c: adjust(
                c, wrong, reason=reason, by="ana", now_ns=NOW_NS, entropy=books.entropy
            )
        )

    correct(-60)
    for quantity, reason in ((-41, "more than billed"), (0, "nothing"), (1, " ")):
        with pytest.raises(BadAmount):
            correct(quantity, reason)
    correct(-40)
    given = books.database.read(lambda c: list_credits(c, acme))
    assert sorted(one.left_micros for one in given) == [40, 60]
    books.post(line(tokens=(30, 0, 0)))
    assert books.database.read(lambda c: balance_micros(c, receivable(acme))) == 100
    found = books.report()
    assert found.sound
    assert (found.total.credited, found.total.outbox) == (-100, 130)


def test_credits_pay_first_and_only_while_they_are_valid(books: Books) -> None:
    acme = books.customer("Acme")
    books.map(ALICE, acme)
    for micros, since_s, until_s in (
        (50, 0, None),
        (30, 0, HOUR + HOUR_S),
        (99, HOUR + HOUR_S, None),
    ):
        books.database.transact(
            lambda c, micros=micros, since_s=since_s, until_s=until_s: grant(
                c,
                acme,
                micros=micros,
                reason="welcome",
                since_s=since_s,
                until_s=until_s,
                by="ana",
                now_ns=NOW_NS,
                entropy=books.entropy,
            )
        )
    books.post(line(tokens=(40, 0, 0)))
    left = books.database.read(lambda c: [one.left_micros for one in list_credits(c, acme)])
    assert left == [0, 40, 99]
    assert books.database.read(lambda c: balance_micros(c, receivable(acme))) == 0
    books.post(line(tokens=(100, 0, 0)))
    assert books.database.read(lambda c: balance_micros(c, receivable(acme))) == 60
    assert books.report().problems == []


def reserve(books: Books, customer: str, *, units: int, overage: bool) -> str:
    made = books.database.transact(
        lambda c: capacity.add(
            c,
            customer,
            model="llama",
            units=units,
            micros_per_unit_month=720_000_000,
            overage=overage,
            since_s=HOUR,
            by="ana",
            now_ns=NOW_NS,
            entropy=books.entropy,
        )
    )
    return made.capacity_id


@pytest.mark.parametrize(("overage", "billed"), [(1, 100), (0, 0)])
def test_reserved_usage_within_the_promise_is_not_billed(
    books: Books, overage: int, billed: int
) -> None:
    acme = books.customer("Acme")
    books.map(ALICE, acme)
    reserve(books, acme, units=1, overage=bool(overage))
    for tokens in ((3_000, 0, 0), (500, 0, 200)):
        books.post(line(tokens=tokens, price_class="reserved"))
    books.post(line(tokens=(7, 0, 0)))  # serverless usage is not covered
    total = books.report().total
    assert (total.signed, total.reserved, total.outbox) == (3_707, 3_700 - billed, billed + 7)
    assert total.explained


def test_reserved_usage_without_capacity_waits_for_it(books: Books) -> None:
    acme = books.customer("Acme")
    books.map(ALICE, acme)
    books.post(line(price_class="reserved"))
    held = books.database.read(lambda c: c.execute(select(HOLDS.c.code)).scalars().all())
    assert held == ["CAPACITY_MISSING"]
    made = reserve(books, acme, units=1, overage=False)
    released = books.database.transact(lambda c: holds.recheck(c, NOW_NS))
    assert released.billed == 1
    with pytest.raises(BadAmount):
        books.database.transact(lambda c: capacity.end(c, made, HOUR))
    ended = books.database.transact(lambda c: capacity.end(c, made, HOUR + 12 * HOUR_S))
    assert capacity.fee_micros(ended, HOUR) == 12 * 1_000_000  # of the 720 hours of November
    december_ns = NOW_NS + 30 * 24 * HOUR_S * 1_000_000_000
    assert books.database.transact(lambda c: capacity.accrue(c, december_ns)) == 1
    assert books.database.transact(lambda c: capacity.accrue(c, december_ns)) == 0
    assert books.report().problems == []


def test_the_table_the_csv_and_the_focus_export_say_the_same(books: Books) -> None:
    acme = books.customer("=Acme, Inc.")
    books.map(ALICE, acme)
    books.map(BOB, acme, plan="free")
    reserve(books, acme, units=2, overage=False)
    books.post(line(tokens=(101, 3, 10), region="eu"), line(BOB))
    found = books.report()
    rows = list(csv.DictReader(io.StringIO(csv_text(found))))
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["customer"] == "'=Acme, Inc."
    assert sum(int(row["signed"]) for row in rows[:-1]) == int(rows[-1]["signed"]) == 224
    assert as_object(found)["total"]["signed"] == 224
    text = books.database.read(lambda c: focus.export(c, ALL, "usd", NOW_NS))
    charges = list(csv.DictReader(io.StringIO(text)))
    assert set(charges[0]) >= set(focus.MANDATORY)
    usage = [one for one in charges if one["ChargeCategory"] == "Usage"]
    assert sum(int(one["ConsumedQuantity"]) for one in usage) == 224
    billed = sum(Decimal(one["BilledCost"]) for one in usage)
    assert billed * 1_000_000 == found.total.amount_micros
    for one in charges:
        for name in set(focus.MANDATORY) - {"ChargeClass"}:
            assert one[name] != "", name
        exact = Decimal(one["ListUnitPrice"]) * Decimal(one["PricingQuantity"])
        assert exact == Decimal(one["ListCost"])
        assert one["BillingCurrency"] == "USD"
    purchase = next(one for one in charges if one["ChargeCategory"] == "Purchase")
    assert purchase["BillingPeriodStart"] == "2026-11-01T00:00:00Z"
