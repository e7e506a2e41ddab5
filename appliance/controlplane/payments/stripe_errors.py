"""What can come of a call to Stripe, apart from success.

CrossLogicError
└── StripeError
    ├── StripeNotConfigured  there is no key: billing waits in pending
    ├── StripeDenied         the key is wrong or may not do this: everything waits
    ├── StripeUnavailable    no answer, 409, 429 or 5xx: try again later, it may have arrived
    ├── StripeDuplicate      the meter event's identifier is known there: it is delivered
    ├── StripeRefused        this request will never be taken as it is
    ├── BadStripeEvent       a webhook whose signature, time or form is wrong
    └── PriceTooFine         a price of more decimal places than Stripe takes
"""

from appliance.domain.errors import CrossLogicError


class StripeError(CrossLogicError):
    code = "stripe_error"


class StripeNotConfigured(StripeError):
    code = "stripe_not_configured"


class StripeDenied(StripeError):
    code = "stripe_denied"


class StripeUnavailable(StripeError):
    """`stored`: Stripe answered 5xx and repeats that answer to the same idempotency key.

    `limited`: it was turned away before it was looked at (429), so it did not arrive.
    """

    code = "stripe_unavailable"

    def __init__(
        self, message: str, *, next_step: str = "", stored: bool = False, limited: bool = False
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.stored = stored
        self.limited = limited


class StripeDuplicate(StripeError):
    code = "stripe_duplicate"


class StripeRefused(StripeError):
    """`reason` is Stripe's own code of the refusal, "" when it gave none."""

    code = "stripe_refused"

    def __init__(self, message: str, *, next_step: str = "", reason: str = "") -> None:
        super().__init__(message, next_step=next_step)
        self.reason = reason


class BadStripeEvent(StripeError):
    code = "bad_stripe_event"


class PriceTooFine(StripeError):
    code = "price_too_fine"
