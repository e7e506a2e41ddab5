"""A process that records and seals without pause, until it is killed.

python -m tests.integration.manifests.busy_site HOME FIRST_NUMBER
"""

import asyncio
import contextlib
import itertools
import sys

from appliance.domain.clock import SystemClock
from appliance.manifests.engine_counts import EngineTally
from appliance.metering.ledger import Ledger
from appliance.sync.errors import KeyUnused
from appliance.sync.identity import establish
from appliance.sync.sealer import Sealer, Surroundings, read_boot_id
from appliance.wire.home import find_home
from tests.fakes.ledger_items import opening, settlement

DIGEST = "00" * 32


async def main(folder: str, first: int) -> None:
    home = find_home(folder)
    home.secrets.mkdir(parents=True, mode=0o700, exist_ok=True)
    clock = SystemClock()
    identity = establish(home.secrets, home.ledger_file)
    ledger = Ledger.open(home.ledger_file, clock, asyncio.get_running_loop())

    async def head() -> str:
        return DIGEST

    surroundings = Surroundings(head, EngineTally(), DIGEST, read_boot_id())
    sealer = Sealer(
        *(home.ledger_file, ledger, home.secrets, identity, surroundings, clock),
        window_s=1,
        note_file=home.manifest_note,
    )

    async def record() -> None:
        for number in itertools.count(first):
            told: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
            item = opening(number, opened_at_ns=clock.wall_ns())
            ledger.settle(settlement(item, settled_at_ns=clock.wall_ns()), told.set_result)
            assert await told is None

    async def seal() -> None:
        for turn in itertools.count(1):
            for row in await sealer.seal():
                sys.stdout.write(f"{row.epoch} {row.seq} {row.sha256}\n")
                sys.stdout.flush()
            if turn % 7 == 0:
                # Where no record came since the last rotation, there is nothing to rotate yet.
                with contextlib.suppress(KeyUnused):
                    await sealer.rotate()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(record())
        tasks.create_task(seal())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
