"""The program that is killed: writes a ledger under load and says what it was told is durable.

    python -m tests.integration.crash.load LEDGER --acks FILE --first N [--requests N] [--naive HOW]

Lines of FILE, one write each: `B n` the opening of request n is durable, `S n output` its record
is, `R n` the ledger refused. `--naive` makes it a control that must not pass the checker:
`early` says so before the commit, `off` and `normal` commit with that PRAGMA synchronous.
"""

import argparse
import asyncio
import os
import random
import sqlite3
from pathlib import Path

import uvloop

from appliance.domain.clock import SystemClock
from appliance.domain.ids import RequestId
from appliance.domain.usage import TokenCount
from appliance.metering.ledger import Ledger
from appliance.storage.database import connect
from tests.fakes.ledger_items import opening, settlement

IN_FLIGHT = 24


class Flow:
    """One client after the other: opens, is served for a moment, settles."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.number = 0
        self.output = 0

    def start(self) -> None:
        load, chance = self.load, self.load.random.random()
        self.number = load.next_number()
        # Some clients choose the same request id again and again.
        changes = {"request_id": RequestId("mine")} if chance < 0.05 else {}
        self.opening = opening(self.number, **changes)
        load.ledger.begin(self.opening, self.opened)
        if chance > 0.95:
            load.idle(self)  # still at work when the end comes
        else:
            load.loop.call_later(load.random.random() * 0.003, self.served)

    def opened(self, error: BaseException | None) -> None:
        self.load.say(f"R {self.number}" if error else f"B {self.number}")

    def served(self) -> None:
        load = self.load
        self.output = load.random.randrange(500)
        item = settlement(self.opening, tokens=TokenCount(7, self.output, 2))
        if load.naive == "early":
            load.say(f"S {self.number} {self.output}")
        load.ledger.settle(item, self.settled)
        if self.number % 7 == 0:
            load.ledger.settle(item, lambda _error: None)

    def settled(self, error: BaseException | None) -> None:
        if error is not None:
            self.load.say(f"R {self.number}")
        elif self.load.naive != "early":
            self.load.say(f"S {self.number} {self.output}")
        self.load.loop.call_soon(self.load.go_on, self)


class Load:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.loop = asyncio.get_running_loop()
        self.random = random.Random(arguments.first)
        self.naive = arguments.naive
        self.acks = os.open(arguments.acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.number = arguments.first
        self.left = arguments.requests
        self.finished = asyncio.Event()
        self.ledger = Ledger.open(
            arguments.ledger,
            SystemClock(),
            self.loop,
            connect=self.connect,
            retry_s=0.05,
            checkpoint_pages=60,  # often, so that many a crash falls into one
        )

    def connect(self, path: Path) -> sqlite3.Connection:
        connection = connect(path)
        if self.naive in {"off", "normal"}:
            connection.execute(f"PRAGMA synchronous = {self.naive}")
        return connection

    async def run(self) -> None:
        self.say("started")
        for _ in range(IN_FLIGHT):
            Flow(self).start()
        await self.finished.wait()
        os._exit(0)  # not closed: the end of this program is never a tidy one

    def say(self, line: str) -> None:
        os.write(self.acks, line.encode() + b"\n")

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def go_on(self, flow: Flow) -> None:
        self.left -= 1
        if self.left == 0:
            self.finished.set()
        flow.start()

    def idle(self, flow: Flow) -> None:
        """`flow` hangs; another takes its place."""
        self.loop.call_later(0.01, self.go_on, Flow(self))


async def main(arguments: argparse.Namespace) -> None:
    await Load(arguments).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--acks", required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--requests", type=int, default=10**9)
    parser.add_argument("--naive", choices=["early", "off", "normal"], default="")
    uvloop.run(main(parser.parse_args()))
