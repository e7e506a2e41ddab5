"""From the signed lines to the invoice: every customer, meter and hour beside each other.

The database adds up; what comes back is one row for each customer, meter and hour. Stripe's side is
what was last read of it (`stripe_facts`), which the caller refreshes first where there is a key.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, case, func, select

from appliance.controlplane.billing import customers, journal, price_book
from appliance.controlplane.billing.adjustments import ADJUSTED
from appliance.controlplane.billing.outbox_table import OUTBOX, OutboxState
from appliance.controlplane.billing.pricing import Kind, Tokens, meter_key
from appliance.controlplane.billing.reconciliation import (
    NO_PLAN,
    TAKEN,
    Figures,
    ReportRow,
    judge,
    total,
)
from appliance.controlplane.billing.signed_usage import Difference, Span, differences
from appliance.controlplane.billing.stored_manifests import StoredManifests
from appliance.controlplane.billing.usage_table import USAGE, UsageState
from appliance.controlplane.payments.delivery import SETTLED_AFTER_S
from appliance.controlplane.payments.stripe_tables import STRIPE_READINGS
from appliance.domain.clock import iso

LAG_S: Final = 24 * 3_600  # after this a sum that is short is no lag any more
SECOND_NS: Final = 1_000_000_000
DIFFERENCES_SHOWN: Final = 100

Key = tuple[str, str, int]  # customer, meter, hour


@dataclass(frozen=True, slots=True)
class Question:
    """What the report is of: hours from `from_s` on and before `until_s`.

    Of one site alone Stripe's figures are left out, because Stripe does not know of sites.
    """

    from_s: int
    until_s: int
    customer_id: str | None = None
    site: str | None = None

    @property
    def span(self) -> Span:
        return Span(self.from_s, self.until_s, self.site)


@dataclass(frozen=True, slots=True)
class Report:
    rows: list[ReportRow]
    total: ReportRow
    problems: list[str]  # of the books as a whole, and which rows differ from what was signed
    currency: str

    @property
    def sound(self) -> bool:
        """Whether every drift is explained, and the books are in order."""
        return self.total.explained and not self.problems


def report(connection: Connection, question: Question, *, currency: str, now_ns: int) -> Report:
    """Compare everything for the hours that are asked for."""
    figures: dict[Key, Figures] = defaultdict(Figures)
    _add_usage(connection, question, figures)
    manifests = StoredManifests(connection)
    found = _wanted(differences(connection, question.span, manifests), question)
    for difference in found:
        for kind, tokens in difference.tokens.kinds():
            meter = meter_key(kind, difference.model, difference.region, difference.plan or NO_PLAN)
            figures[difference.customer_id, meter, difference.hour_s].signed += tokens
    _add_outbox(connection, question, figures)
    if question.site is None:
        _add_adjustments(connection, question, figures)
        _add_stripe(connection, question, figures, now_ns)
    else:
        _believe_stripe(figures)
    names = {one.customer_id: one.name for one in customers.list_customers(connection)}
    rows = [
        judge(key[0], names.get(key[0], key[0]), key[1], iso(key[2] * SECOND_NS), figures[key])
        for key in sorted(figures, key=lambda key: (names.get(key[0], key[0]), key[2], key[1]))
    ]
    problems = [_told(difference) for difference in found[:DIFFERENCES_SHOWN]]
    if len(found) > DIFFERENCES_SHOWN:
        problems.append(f"{len(found)} rows of usage differ from what was signed")
    problems += manifests.problems[:DIFFERENCES_SHOWN]
    problems += _of_prices(connection, question)
    problems += _of_the_books(connection)
    return Report(rows, total(rows), problems, currency)


def _add_usage(connection: Connection, question: Question, figures: dict[Key, Figures]) -> None:
    columns = USAGE.c
    names = (
        *("input_tokens", "cached_tokens", "output_tokens"),
        *("free_input", "free_cached", "free_output"),
        *("reserved_input", "reserved_cached", "reserved_output"),
    )
    keys = (columns.customer_id, columns.model, columns.region, columns.plan, columns.hour_s)
    query = (
        select(*keys, columns.state, *(func.sum(columns[name]) for name in names))
        .where(*_where(columns, question))
        .group_by(*keys, columns.state)
    )
    if question.site is not None:
        query = query.where(columns.appliance_id == question.site)
    for customer_id, model, region, plan, hour_s, state, *sums in connection.execute(query):
        used = [int(sum_) for sum_ in sums]
        for place, kind in enumerate(Kind):
            tokens, free, reserved = used[place], used[3 + place], used[6 + place]
            if not tokens:
                continue
            meter = meter_key(kind, model, region, plan or NO_PLAN)
            of = figures[customer_id, meter, hour_s]
            of.signed += tokens
            of.ledger += tokens
            of.free += free
            of.reserved += reserved
            of.held += tokens if state == UsageState.HELD else 0
            of.written_off += tokens if state == UsageState.WRITTEN_OFF else 0


def _add_outbox(connection: Connection, question: Question, figures: dict[Key, Figures]) -> None:
    columns = OUTBOX.c
    keys = (columns.customer_id, columns.meter, columns.hour_s)
    query = (
        select(
            *keys,
            columns.state,
            func.sum(columns.quantity),
            func.sum(columns.amount_micros),
        )
        .where(*_where(columns, question))
        .group_by(*keys, columns.state)
    )
    if question.site is not None:
        query = query.where(columns.source.startswith(f"{question.site}/", autoescape=True))
    for customer_id, meter, hour_s, state, tokens, amount in connection.execute(query):
        of = figures[customer_id, meter, hour_s]
        of.states[state] = of.states.get(state, 0) + int(tokens)
        of.amount_micros += int(amount) if state != OutboxState.CANCELLED else 0


def _add_adjustments(
    connection: Connection, question: Question, figures: dict[Key, Figures]
) -> None:
    columns = ADJUSTED.c
    keys = (columns.customer_id, columns.meter, columns.hour_s)
    more = func.sum(case((columns.quantity > 0, columns.quantity), else_=0))
    less = func.sum(case((columns.quantity < 0, columns.quantity), else_=0))
    query = select(*keys, more, less).where(*_where(columns, question)).group_by(*keys)
    for customer_id, meter, hour_s, adjusted, credited in connection.execute(query):
        of = figures[customer_id, meter, hour_s]
        of.adjusted += int(adjusted)
        of.credited += int(credited)


def _add_stripe(
    connection: Connection, question: Question, figures: dict[Key, Figures], now_ns: int
) -> None:
    columns = STRIPE_READINGS.c
    keys = (columns.customer_id, columns.meter, columns.hour_s)
    query = (
        select(*keys, func.sum(columns.quantity), func.min(columns.read_at_ns))
        .where(*_where(columns, question))
        .group_by(*keys)
    )
    read_at: dict[Key, int] = {}
    for customer_id, meter, hour_s, tokens, read_at_ns in connection.execute(query):
        key = (customer_id, meter, hour_s)
        if not tokens and key not in figures:
            continue  # Stripe has nothing of an hour of which nobody has anything
        figures[key].stripe = int(tokens)
        read_at[key] = int(read_at_ns)
    for key, settled_at_ns in _last_taken(connection, question).items():
        fresh = now_ns - settled_at_ns < LAG_S * SECOND_NS
        early = read_at.get(key, 0) < settled_at_ns + SETTLED_AFTER_S * SECOND_NS
        figures[key].stripe_lags = fresh or early


def _last_taken(connection: Connection, question: Question) -> dict[Key, int]:
    """When Stripe last took something of an hour."""
    columns = OUTBOX.c
    keys = (columns.customer_id, columns.meter, columns.hour_s)
    query = (
        select(*keys, func.max(columns.settled_at_ns))
        .where(*_where(columns, question), columns.state == OutboxState.ACCEPTED.value)
        .group_by(*keys)
    )
    return {(row[0], row[1], row[2]): int(row[3] or 0) for row in connection.execute(query)}


def _believe_stripe(figures: dict[Key, Figures]) -> None:
    """For one site there is nothing to compare with: what was taken counts as there."""
    for of in figures.values():
        of.stripe = of.of(*TAKEN)


def _where(columns: Any, question: Question) -> list[ColumnElement[bool]]:
    where = [columns.hour_s >= question.from_s, columns.hour_s < question.until_s]
    if question.customer_id is not None:
        where.append(columns.customer_id == question.customer_id)
    return where


def _wanted(found: Iterable[Difference], question: Question) -> list[Difference]:
    return [one for one in found if question.customer_id in {None, one.customer_id}]


def _told(difference: Difference) -> str:
    place = f"{difference.appliance_id}/{difference.epoch}/{difference.seq}"
    tokens: Tokens = difference.tokens
    hour = iso(difference.hour_s * SECOND_NS)
    return (
        f"usage of manifest {place}, tenant {difference.tenant_id}, {difference.model}, {hour}: "
        f"signed minus stored is input {tokens.input}, cached {tokens.cached}, output "
        f"{tokens.output}, requests {difference.requests}"
    )


def _of_prices(connection: Connection, question: Question) -> list[str]:
    """Prices in the outbox that the book does not have for their hour."""
    book = price_book.current(connection)
    wrong = price_book.other_prices(connection, book, question.from_s, question.until_s)
    return list(islice(wrong, DIFFERENCES_SHOWN))


def _of_the_books(connection: Connection) -> list[str]:
    """What is wrong with the books: entries that leave something, revenue not the outbox's."""
    problems = [
        f"the lines of journal entry {entry_id} do not add up to nothing"
        for entry_id in journal.unbalanced(connection)
    ]
    billed = connection.execute(
        select(func.coalesce(func.sum(OUTBOX.c.amount_micros), 0)).where(
            OUTBOX.c.state != OutboxState.CANCELLED.value
        )
    ).scalar_one()
    booked = journal.balance_micros(connection, journal.USAGE_REVENUE)
    if int(billed) + booked != 0:
        problems.append(
            f"the outbox bills {int(billed)} micros, the journal has {-booked} as revenue of usage"
        )
    return problems
