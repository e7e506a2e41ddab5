"""One row of the reconciliation and what its figures mean: pure.

For one customer, meter and UTC hour, in tokens:

    drift = signed + adjusted - free - reserved - held - written off
                   - cancelled - waiting - stripe - invoiced

Everything that is taken away is an explanation with a cause of its own. What is left should be 0.
It is explained while Stripe's sums lag or were not read, or while it cannot be told whether Stripe
has what was sent; else somebody has to look.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from appliance.controlplane.billing.outbox_table import OutboxState

NO_CUSTOMER: Final = ""  # usage of tenants that are not mapped
NO_PLAN: Final = "-"
WAITING: Final = (
    OutboxState.PENDING,
    OutboxState.SENDING,
    OutboxState.AMBIGUOUS,
    OutboxState.QUARANTINED,
)
IN_DOUBT: Final = (OutboxState.SENDING, OutboxState.AMBIGUOUS, OutboxState.QUARANTINED)
TAKEN: Final = (OutboxState.ACCEPTED, OutboxState.RECONCILED)


class Cause(StrEnum):
    """Why signed and billed are not the same; the first ones are no reason for concern."""

    FREE = "free"
    RESERVED = "reserved"
    HELD = "held"
    WRITTEN_OFF = "written_off"
    ADJUSTED = "adjusted"
    CREDITED = "credited"
    LATE = "late"
    PENDING = "pending"
    SENDING = "sending"
    AMBIGUOUS = "ambiguous"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"
    STRIPE_LAGS = "stripe_lags"
    STRIPE_NOT_READ = "stripe_not_read"
    # Somebody has to look.
    LEDGER_DIFFERS = "LEDGER_DIFFERS"  # a row of usage is not what the signed lines say
    OUTBOX_DIFFERS = "OUTBOX_DIFFERS"  # the outbox is not what the usage leaves to bill
    STRIPE_HAS_LESS = "STRIPE_HAS_LESS"
    STRIPE_HAS_MORE = "STRIPE_HAS_MORE"


UNEXPLAINED: Final = frozenset(
    {Cause.LEDGER_DIFFERS, Cause.OUTBOX_DIFFERS, Cause.STRIPE_HAS_LESS, Cause.STRIPE_HAS_MORE}
)


@dataclass(slots=True)
class Figures:
    """Everything known of one customer, meter and hour. `stripe` None: never read."""

    signed: int = 0
    ledger: int = 0
    free: int = 0
    reserved: int = 0
    held: int = 0
    written_off: int = 0
    adjusted: int = 0
    credited: int = 0  # below 0
    states: dict[str, int] = field(default_factory=dict)  # of the outbox, tokens
    amount_micros: int = 0  # of the outbox, without what is cancelled
    stripe: int | None = None
    stripe_lags: bool = False  # it took something so lately that its sums may not show it

    def of(self, *states: OutboxState) -> int:
        return sum(self.states.get(state.value, 0) for state in states)


@dataclass(frozen=True, slots=True)
class ReportRow:
    """The figures of one customer, meter and hour as they are reported. Tokens; money in micros."""

    customer_id: str
    customer: str
    meter: str
    hour: str
    signed: int
    ledger: int
    adjusted: int
    free: int
    reserved: int
    held: int
    written_off: int
    outbox: int
    waiting: int
    cancelled: int
    stripe: int | None
    invoiced: int
    credited: int
    amount_micros: int
    drift: int
    cause: str  # words with spaces between
    explained: bool


def judge(customer_id: str, customer: str, meter: str, hour: str, figures: Figures) -> ReportRow:
    """Say what is explained, and by what."""
    outbox = sum(figures.states.values())
    taken = figures.of(*TAKEN)
    explained = figures.free + figures.reserved + figures.held + figures.written_off
    ledger_gap = figures.signed - figures.ledger
    outbox_gap = figures.ledger + figures.adjusted - explained - outbox
    stripe_gap = taken - (figures.stripe or 0)
    causes = [
        cause
        for cause, there in (
            (Cause.FREE, figures.free),
            (Cause.RESERVED, figures.reserved),
            (Cause.HELD, figures.held),
            (Cause.WRITTEN_OFF, figures.written_off),
            (Cause.ADJUSTED, figures.adjusted),
            (Cause.CREDITED, figures.credited),
            (Cause.LATE, figures.of(OutboxState.LATE)),
            (Cause.PENDING, figures.of(OutboxState.PENDING)),
            (Cause.SENDING, figures.of(OutboxState.SENDING)),
            (Cause.AMBIGUOUS, figures.of(OutboxState.AMBIGUOUS)),
            (Cause.QUARANTINED, figures.of(OutboxState.QUARANTINED)),
            (Cause.CANCELLED, figures.of(OutboxState.CANCELLED)),
            (Cause.LEDGER_DIFFERS, ledger_gap),
            (Cause.OUTBOX_DIFFERS, outbox_gap),
        )
        if there
    ]
    stripe_cause = _of_stripe(figures, stripe_gap)
    if stripe_cause is not None and stripe_cause not in causes:
        causes.append(stripe_cause)
    return ReportRow(
        customer_id=customer_id,
        customer=customer,
        meter=meter,
        hour=hour,
        signed=figures.signed,
        ledger=figures.ledger,
        adjusted=figures.adjusted,
        free=figures.free,
        reserved=figures.reserved,
        held=figures.held,
        written_off=figures.written_off,
        outbox=outbox,
        waiting=figures.of(*WAITING),
        cancelled=figures.of(OutboxState.CANCELLED),
        stripe=figures.stripe,
        invoiced=figures.of(OutboxState.LATE),
        credited=figures.credited,
        amount_micros=figures.amount_micros,
        drift=ledger_gap + outbox_gap + stripe_gap,
        cause=" ".join(causes),
        explained=UNEXPLAINED.isdisjoint(causes),
    )


def total(rows: list[ReportRow]) -> ReportRow:
    """The sums of all rows. Its drift is that of the rows without their signs."""

    def sum_of(name: str) -> int:
        return sum(getattr(row, name) or 0 for row in rows)

    read = [row.stripe for row in rows if row.stripe is not None]
    return ReportRow(
        customer_id="",
        customer="",
        meter="total",
        hour="",
        signed=sum_of("signed"),
        ledger=sum_of("ledger"),
        adjusted=sum_of("adjusted"),
        free=sum_of("free"),
        reserved=sum_of("reserved"),
        held=sum_of("held"),
        written_off=sum_of("written_off"),
        outbox=sum_of("outbox"),
        waiting=sum_of("waiting"),
        cancelled=sum_of("cancelled"),
        stripe=sum(read) if read else None,
        invoiced=sum_of("invoiced"),
        credited=sum_of("credited"),
        amount_micros=sum_of("amount_micros"),
        drift=sum(abs(row.drift) for row in rows),
        cause=" ".join(sorted({word for row in rows for word in row.cause.split()})),
        explained=all(row.explained for row in rows),
    )


def _of_stripe(figures: Figures, gap: int) -> Cause | None:
    """Why Stripe's sum is not what it took; None when it is."""
    if gap == 0:
        return None
    in_doubt = figures.of(*IN_DOUBT)
    if gap < 0:
        return Cause.AMBIGUOUS if -gap <= in_doubt else Cause.STRIPE_HAS_MORE
    if figures.stripe is None:
        return Cause.STRIPE_NOT_READ
    return Cause.STRIPE_LAGS if figures.stripe_lags else Cause.STRIPE_HAS_LESS
