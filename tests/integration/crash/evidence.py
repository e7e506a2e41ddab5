"""The checker: what was said to be durable, against what the ledger holds after the crash."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from appliance.domain.clock import SystemClock
from appliance.metering.ledger import Ledger
from appliance.metering.reader import LedgerReader
from tests.fakes.ledger_items import opening, settlement

WAIT_S = 20.0
PROOF = 10**9  # the number of the request that shows that the ledger works again


@dataclass(slots=True)
class Evidence:
    """What a program said before it ended. A torn last line was never said."""

    begun: set[str] = field(default_factory=set)  # ids of records
    settled: dict[str, int] = field(default_factory=dict)  # output tokens by id
    refused: int = 0

    def hear(self, said: bytes) -> None:
        for line in said[: said.rfind(b"\n") + 1].decode().splitlines():
            word, *rest = line.split()
            if word == "R":
                self.refused += 1
            elif word in {"B", "S"}:
                record_id = opening(int(rest[0])).record_id
                self.begun.add(record_id)
                if word == "S":
                    self.settled[record_id] = int(rest[1])


def objections(path: Path, evidence: Evidence) -> list[str]:
    """What is wrong with the ledger at `path`, after it was opened again. Nothing: it is sound."""
    try:
        asyncio.run(_open_again(path))
    # A checker reports whatever keeps the ledger from opening; it does not stop at it.
    except Exception as error:  # noqa: BLE001
        return [f"the ledger does not open again: {error!r}"]
    reader = LedgerReader(path)
    found = reader.verify()
    wrong = list(found.problems)
    if found.open:
        wrong.append(f"{found.open} openings never ended")
    held: dict[str, tuple[str, int]] = {}
    for record in reader.rows():
        if record.record_id in held:
            wrong.append(f"{record.record_id} is there twice")
        held[record.record_id] = (record.status, record.output_tokens)
    wrong += [f"{record_id} was begun and is missing" for record_id in evidence.begun - held.keys()]
    wrong += [
        f"{record_id} was settled with {output} and is {held[record_id]}"
        for record_id, output in evidence.settled.items()
        if record_id in held and held[record_id] != ("ok", output)
    ]
    if PROOF_ID not in held:
        wrong.append("nothing can be recorded any more")
    return wrong


PROOF_ID = opening(PROOF).record_id


async def _open_again(path: Path) -> None:
    """As the appliance does it: recover what was cut off, then record one more request."""
    ledger = Ledger.open(path, SystemClock(), asyncio.get_running_loop())
    try:
        told = asyncio.Event()
        ledger.settle(settlement(opening(PROOF)), lambda error: error or told.set())
        await asyncio.wait_for(told.wait(), WAIT_S)
    finally:
        ledger.close()
