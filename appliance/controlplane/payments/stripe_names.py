"""How our meters, prices and moments are called and written in Stripe. Pure."""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from appliance.controlplane.payments.stripe_errors import PriceTooFine

NAME_MAX: Final = 100  # of an event name and an identifier
DECIMALS_MAX: Final = 12  # of an amount in the minor unit, per the parameter's description
SPLIT_MARK: Final = "~"  # between an identifier and what makes it another one

# "Supported currencies": those whose minor unit is not a hundredth.
_NO_DECIMALS: Final = re.compile("bif|clp|djf|gnf|jpy|kmf|krw|mga|pyg|rwf|vnd|vuv|xaf|xof|xpf")
_THREE_DECIMALS: Final = re.compile("bhd|jod|kwd|omr|tnd")


@dataclass(frozen=True, slots=True)
class Tariff:
    """A meter at one price: what one meter of Stripe stands for.

    A meter of ours whose price changes gets another meter in Stripe, so that usage of each hour
    keeps the price of that hour though both are on one invoice.
    """

    meter: str
    kind: str
    model: str
    region: str
    plan: str
    micros_per_million: int
    multiplier_bp: int
    currency: str

    @property
    def event_name(self) -> str:
        facts = f"{self.meter}\n{self.micros_per_million}\n{self.multiplier_bp}\n{self.currency}"
        words = "_".join(
            _word(part) for part in (self.model, self.kind, self.region, self.plan) if part
        )
        return f"cl_{words[:72]}_{_digest(facts)}"

    @property
    def product_id(self) -> str:
        return f"cl_{_digest(self.meter)}"

    @property
    def title(self) -> str:
        """What a person reads on the invoice."""
        where = ", ".join(part for part in (self.region, self.plan) if part)
        return f"{self.model}: {self.kind} tokens" + (f" ({where})" if where else "")

    @property
    def unit_amount(self) -> str:
        """The price of one token in the minor unit, in decimal digits, exactly."""
        return minor_digits(self.micros_per_million, self.multiplier_bp, self.currency)


def minor_digits(micros_per_million: int, multiplier_bp: int, currency: str) -> str:
    """`150000` micro-units per million tokens at 7,000 basis points in `usd` → `0.0000105`."""
    return _digits(Decimal(micros_per_million) * multiplier_bp / Decimal(10) ** 16, currency)


def flat_amount(micros: int, currency: str) -> str:
    """A flat price, from micro-units to the minor unit, in decimal digits, exactly."""
    return _digits(Decimal(micros) / Decimal(10) ** 6, currency)


def _digits(main_units: Decimal, currency: str) -> str:
    amount = (main_units * _minor_per_main(currency)).normalize()
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or -exponent > DECIMALS_MAX:
        raise PriceTooFine(
            f"{amount:f} of {currency}'s minor unit has more than {DECIMALS_MAX} decimal places "
            "and cannot be billed.",
            next_step="Set a price that is a multiple of 100 micro-units per million tokens.",
        )
    return f"{amount:f}"


def minor_rounded_up(micros: int, currency: str) -> int:
    """An amount of money in whole minor units, no less than it is."""
    return -(-micros * _minor_per_main(currency) // 1_000_000)


def _minor_per_main(currency: str) -> int:
    if _NO_DECIMALS.fullmatch(currency):
        return 1
    return 1_000 if _THREE_DECIMALS.fullmatch(currency) else 100


def flat_product(model: str) -> str:
    return f"cl_capacity_{_digest(model)}"


def flat_key(model: str, micros_per_unit_month: int, currency: str) -> str:
    """The lookup key of the price of one unit of capacity."""
    return (
        f"cl_capacity_{_word(model)[:60]}_{_digest(f'{model}|{micros_per_unit_month}|{currency}')}"
    )


def month_of(moment_s: int) -> tuple[int, int]:
    """Start of the UTC month, and of the one after it."""
    moment = datetime.fromtimestamp(moment_s, UTC)
    start = datetime(moment.year, moment.month, 1, tzinfo=UTC)
    following = datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=UTC)
    return int(start.timestamp()), int(following.timestamp())


def another_identifier(identifier: str, number: int) -> str:
    """An identifier Stripe has not seen, that still shows which row it belongs to."""
    mark = f"{SPLIT_MARK}{number}"
    if len(identifier) + len(mark) <= NAME_MAX:
        return identifier + mark
    return f"{identifier[: NAME_MAX - len(mark) - 17]}_{_digest(identifier)}{mark}"


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
