"""The control: `cic` with a ledger that says so before it has committed. Must be caught."""

import asyncio

from appliance.cli import main
from appliance.metering.ledger import Done, Ledger
from appliance.metering.records import Settlement

_settle = Ledger.settle


def _settle_early(self: Ledger, settlement: Settlement, done: Done) -> None:
    asyncio.get_running_loop().call_soon(done, None)
    _settle(self, settlement, lambda _error: None)


if __name__ == "__main__":
    Ledger.settle = _settle_early  # type: ignore[method-assign]  # the point of the control
    main()
