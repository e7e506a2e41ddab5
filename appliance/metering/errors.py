"""Errors of metering.

LedgerError
├── LedgerUnavailable   the disk is full or failing: nothing was recorded, the request is refused
├── BadRecord           a settlement that breaks a rule of the ledger; only it is refused
└── LedgerClosed        the appliance is stopping
"""

from appliance.domain.errors import CrossLogicError


class LedgerError(CrossLogicError):
    code = "ledger_error"


class LedgerUnavailable(LedgerError):
    code = "ledger_unavailable"


class LedgerClosed(LedgerError):
    code = "ledger_closed"


class BadRecord(LedgerError):
    code = "bad_record"
