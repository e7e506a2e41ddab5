"""A ledger in memory: what the gateway hands over, in order, with failures and delays on demand."""

import asyncio
from collections.abc import Callable

from appliance.metering.records import Opening, Settlement

Done = Callable[[BaseException | None], None]


class MemoryLedger:
    """`done` is called on a later turn of the loop, as the real one does.

    `hold`: nothing becomes durable until `let_go`. `failure`: what every write ends with.
    """

    def __init__(self) -> None:
        self.openings: list[Opening] = []
        self.settlements: list[Settlement] = []
        self.failure: BaseException | None = None
        self.hold = False
        self._waiting: list[Done] = []

    def begin(self, opening: Opening, done: Done) -> None:
        self.openings.append(opening)
        self._finish(done)

    def settle(self, settlement: Settlement, done: Done) -> None:
        self.settlements.append(settlement)
        self._finish(done)

    def let_go(self) -> None:
        self.hold = False
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(self.failure)

    def _finish(self, done: Done) -> None:
        if self.hold:
            self._waiting.append(done)
        else:
            asyncio.get_running_loop().call_soon(done, self.failure)

    def only(self) -> Settlement:
        """The one settlement there is, of the one opening there is."""
        assert len(self.openings) == len(self.settlements) == 1, (self.openings, self.settlements)
        assert self.settlements[0].opening.record_id == self.openings[0].record_id
        return self.settlements[0]
