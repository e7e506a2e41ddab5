"""What a verification can find, in the order in which it is looked for."""

from enum import StrEnum
from typing import Final


class Code(StrEnum):
    """Why a manifest is not accepted, or is accepted and not billed yet.

    The order of the members is the order of the checks: the first that fails is the answer.
    """

    # Of the bytes alone, before any table is read for writing.
    TOO_LARGE = "TOO_LARGE"
    MALFORMED = "MALFORMED"
    UNSUPPORTED_SCHEMA = "UNSUPPORTED_SCHEMA"
    UNKNOWN_APPLIANCE = "UNKNOWN_APPLIANCE"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    KEY_REVOKED = "KEY_REVOKED"
    SIG_INVALID = "SIG_INVALID"
    LINES_ROOT_MISMATCH = "LINES_ROOT_MISMATCH"
    TOTALS_MISMATCH = "TOTALS_MISMATCH"
    # Against what the site reported before, in the transaction that stores the manifest.
    ALREADY_ACCEPTED = "ALREADY_ACCEPTED"  # not an error: the same answer again
    FORK = "FORK"  # both are kept, the appliance is frozen
    EPOCH_CLOSED = "EPOCH_CLOSED"
    GAP = "GAP"  # stored, not posted, until what is missing comes
    CHAIN_BROKEN = "CHAIN_BROKEN"
    LOG_INCONSISTENT = "LOG_INCONSISTENT"
    EVENT_SEQ_OVERLAP = "EVENT_SEQ_OVERLAP"
    EVENT_SEQ_GAP = "EVENT_SEQ_GAP"
    CUMULATIVE_REGRESSION = "CUMULATIVE_REGRESSION"
    # Accepted and posted; billing waits for a person.
    COUNTER_REGRESSION = "COUNTER_REGRESSION"
    CLOCK_REGRESSION = "CLOCK_REGRESSION"
    CLOCK_FUTURE = "CLOCK_FUTURE"
    TENANT_UNMAPPED = "TENANT_UNMAPPED"
    # All is well.
    ACCEPTED = "ACCEPTED"


# Accepted into the chain, though the billing of it is held.
HELD: Final = frozenset(
    {Code.COUNTER_REGRESSION, Code.CLOCK_REGRESSION, Code.CLOCK_FUTURE, Code.TENANT_UNMAPPED}
)
