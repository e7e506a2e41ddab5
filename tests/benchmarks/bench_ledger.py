"""What the ledger costs: CPU per request (begin and settle, all threads) and records per second.

    python -m tests.benchmarks.bench_ledger [--in-flight 64] [--requests 20000] [--engine-ms 4]

The same flows run once with a ledger and once with a stand-in that answers at the next turn of the
loop; the difference is the ledger's. The time an engine needs is simulated by a timer.
"""

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import uvloop

from appliance.domain.clock import SystemClock
from appliance.domain.ids import (
    DeploymentId,
    EnvironmentId,
    KeyId,
    RecordId,
    RequestId,
    TenantId,
    new_id,
)
from appliance.domain.usage import Measured, Operation, Status, TokenCount
from appliance.metering.ledger import Ledger
from appliance.metering.records import Opening, Settlement

Done = Callable[[BaseException | None], None]


class Books(Protocol):
    def begin(self, opening: Opening, done: Done) -> None: ...
    def settle(self, settlement: Settlement, done: Done) -> None: ...


class NoLedger:
    """Answers at the next turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def begin(self, opening: Opening, done: Done) -> None:
        self._loop.call_soon(done, None)

    def settle(self, settlement: Settlement, done: Done) -> None:
        self._loop.call_soon(done, None)


class Flow:
    """One connection: opens, waits for its engine, settles, waits, starts anew."""

    def __init__(self, load: "Load", number: int) -> None:
        self.load = load
        self.opening = load.opening(number)

    def start(self) -> None:
        self.opening = self.load.opening()
        self.load.books.begin(self.opening, self.opened)
        if self.load.engine_s:
            self.load.loop.call_later(self.load.engine_s, self.answered)
        else:
            self.load.loop.call_soon(self.answered)

    def opened(self, error: BaseException | None) -> None:
        if error is not None:
            raise error

    def answered(self) -> None:
        settlement = Settlement(
            self.opening,
            Status.OK,
            TokenCount(812, 64, 512),
            Measured.ENGINE,
            200,
            "",
            "node-1",
            time.time_ns(),
            12,
            4,
        )
        self.load.books.settle(settlement, self.settled)

    def settled(self, error: BaseException | None) -> None:
        if error is not None:
            raise error
        self.load.finished(self)


class Load:
    """Keeps `in_flight` flows going until `requests` have settled."""

    def __init__(
        self, books: Books, in_flight: int, requests: int, engine_s: float, prefix: str
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.books = books
        self.engine_s = engine_s
        self.left_to_start = requests
        self.left_to_finish = requests
        self.prefix = prefix
        self.done = self.loop.create_future()
        self.flows = [Flow(self, number) for number in range(in_flight)]

    async def run(self) -> tuple[float, float]:
        """CPU seconds of the process (all threads) and wall seconds."""
        cpu_s, wall_s = _cpu_s(), time.perf_counter()
        for flow in self.flows:
            self.left_to_start -= 1
            flow.start()
        await self.done
        return _cpu_s() - cpu_s, time.perf_counter() - wall_s

    def opening(self, number: int = 0) -> Opening:
        return Opening(
            RecordId(new_id("record")),
            RequestId(new_id("request")),
            time.time_ns(),
            TenantId("ten_00112233445566778899aabb"),
            "acme",
            EnvironmentId("env_00112233445566778899aabb"),
            "prod",
            KeyId("key_00112233445566778899aabb"),
            "backend",
            "smollm2-135m",
            "sha256:" + "ab" * 32,
            DeploymentId("dep_00112233445566778899aabb"),
            "eu-central",
            Operation.CHAT,
            "serverless",
            900,
        )

    def finished(self, flow: Flow) -> None:
        self.left_to_finish -= 1
        if self.left_to_start > 0:
            self.left_to_start -= 1
            flow.start()
        elif self.left_to_finish == 0:
            self.done.set_result(None)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(arguments: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    engine_s = arguments.engine_ms / 1_000
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.open(Path(folder) / "ledger.db", SystemClock(), loop)
        for round_no in range(arguments.rounds):
            costs = {}
            for name, books in (("without", NoLedger(loop)), ("ledger", ledger)):
                load = Load(
                    books, arguments.in_flight, arguments.requests, engine_s, f"{name}{round_no}"
                )
                costs[name] = await load.run()
            cpu_us, base_us = (
                costs[name][0] / arguments.requests * 1e6 for name in ("ledger", "without")
            )
            print(
                f"round {round_no}: {cpu_us - base_us:.1f} µs CPU per request"
                f" ({cpu_us:.1f} with, {base_us:.1f} without),"
                f" {arguments.requests / costs['ledger'][1]:.0f} records/s,"
                f" {ledger.counters.items / max(1, ledger.counters.commits):.1f} items per commit,"
                f" {ledger.counters.commit_s / max(1, ledger.counters.commits) * 1e6:.0f} µs"
                " per commit"
            )
        ledger.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--engine-ms", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    uvloop.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
