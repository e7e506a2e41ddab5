"""Amounts of money in whole millionths of a US dollar: never a float."""

from decimal import Decimal, InvalidOperation
from typing import Final

MICRO: Final = 1_000_000
_MOST_MICRO: Final = 10**15  # a thousand million dollars


def micro_of(text: str) -> int:
    """`12.50` is 12,500,000. Raises ValueError: no amount, negative, or finer than a millionth."""
    try:
        amount = Decimal(text) * MICRO
    except InvalidOperation:
        raise ValueError(f"{text!r} is no amount: write 12.50") from None
    if not amount.is_finite() or not 0 <= amount <= _MOST_MICRO or amount != int(amount):
        raise ValueError(f"{text!r} is no amount: write 12.50")
    return int(amount)


def dollars(micro: int) -> str:
    """12,500,000 is `12.50`; what is finer than a cent is shown as it is."""
    amount = (Decimal(micro) / MICRO).normalize()
    exponent = amount.as_tuple().exponent
    cents = Decimal("0.01")
    coarse = isinstance(exponent, int) and exponent > -2
    return f"{amount.quantize(cents) if coarse else amount:f}"
