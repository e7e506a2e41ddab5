"""The whole path on one machine: engine, appliance, control plane, Stripe double; and their time.

The appliance and the control plane are real processes that die and start again; the engine and the
double live in the test's own process and lose nothing. All clocks move together.
"""

import contextlib
import csv
import http.client
import itertools
import json
import random
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection

from appliance.controlplane.billing import customers, price_book, tenants
from appliance.controlplane.database import Database
from tests.fakes.engine import FaultEngine, engine_in_thread
from tests.fakes.engine_answers import figures
from tests.fakes.entropy import SeededEntropy
from tests.fakes.site import CALL_S, Key, Site, SiteFailure
from tests.fakes.stripe.threaded import ThreadedDouble, double_in_thread
from tests.integration.conservation.balance import (
    TAKEN,
    Books,
    Sheet,
    Tokens,
    balance,
    read_control_plane,
    read_site,
    read_stripe,
)
from tests.integration.conservation.points import CONTROL, SITE, names
from tests.integration.conservation.programs import Launcher, Program

MODEL = "fault"
MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
FREE_TOKENS = 2_000  # a month: used up soon
AT_ONCE = 4  # clients
SETTLE_TURNS = 120
ASK_S = 5.0
LAG_S = 300  # of Stripe's sums
METER_EVENTS = "/v1/billing/meter_events"


class LaunchedSite(Site):
    """A site whose appliance is started by the launcher."""

    def __init__(self, folder: Path, program: Program, settings: dict[str, str]) -> None:
        super().__init__(folder, settings=settings)
        self.program = program

    def start(self) -> None:
        if self.try_start() is None:
            raise AssertionError(f"`cic serve` ended\n{self.program.told()}")

    def try_start(self) -> str | None:
        """None when a fault point ended it before it was ready."""
        begin = self.program.log.stat().st_size
        self.program.start("--home", str(self.home), "serve", "--listen", "127.0.0.1:0")
        line = self.program.ready_line("ready ", begin)
        if line is not None:
            self.base_url = line.split()[1]
        return line

    def kill(self) -> None:
        self.program.kill()

    def printed(self) -> str:
        return self.program.told()


class World:
    """Made by `world`; `round` kills once, `settled` brings everything to rest and adds it up."""

    def __init__(
        self,
        folder: Path,
        launcher: Launcher,
        engine: FaultEngine,
        stripe: ThreadedDouble,
        port: int,
        *,
        naive: str,
    ) -> None:
        self.launcher = launcher
        self.engine = engine
        self.stripe = stripe
        self.port = port
        for name in ("site.log", "control.log"):
            (folder / name).touch()
        self.site = LaunchedSite(folder, Program(launcher, SITE, folder / "site.log"), {})
        self.control = Program(launcher, CONTROL, folder / "control.log", naive=naive)
        self.control_home = folder / "control"
        self.answered: dict[str, Tokens] = {}
        self.kills: dict[str, int] = {}
        self._keys: list[Key] = []
        self._numbers = itertools.count(1)
        self._clients = ThreadPoolExecutor(AT_ONCE)

    # Making it

    def prepare(self) -> None:
        """Init both, enrol the site, three tenants: free plan, paid plan, and one not mapped."""
        self.site.init()
        self._cic("init")
        self.start_control()
        self.site.start()
        self.site.deployment(MODEL, self.engine.url)
        tenant_names = ("free", "paid", "stranger")
        self._keys = [self.site.key(tenant=self.site.tenant(name)) for name in tenant_names]
        code = self._cic("enroll", "site-1", "--valid-days", "36500")["code"]
        url = f"http://127.0.0.1:{self.port}"
        status = self.site.admin("POST", "/v1/sync/enrol", {"url": url, "code": code})
        ids = self._tenant_ids()
        self._appliance_id = status["appliance_id"]
        self._with_database(self._install_prices)
        self._with_database(lambda connection: self._map(connection, "free", ids["free"], "free"))
        self._with_database(
            lambda connection: self._map(connection, "paid", ids["paid"], "business")
        )

    def newcomer(self) -> None:
        """One more tenant, and a customer who pays for it: Stripe knows neither."""
        self.site.admin("POST", "/v1/sync/now")  # after a long jump the lease has to be renewed
        name = f"newcomer-{next(self._numbers)}"
        key = self.site.key(tenant=self.site.tenant(name))
        ids = self._tenant_ids()
        self._with_database(lambda connection: self._map(connection, name, ids[name], "business"))
        self._keys = [*self._keys[:3], key]  # the newest one takes the place of the last

    def _tenant_ids(self) -> dict[str, str]:
        return {row["name"]: row["id"] for row in self.site.admin("GET", "/v1/tenants")}

    def _with_database(self, run: Callable[[Connection], None]) -> None:
        database = Database.open(f"sqlite:///{self.control_home / 'control-plane.db'}")
        try:
            database.transact(run)
        finally:
            database.close()

    def _install_prices(self, connection: Connection) -> None:
        examples = price_book.examples("usd")
        book = msgspec.structs.replace(examples, free_tokens_per_month=FREE_TOKENS)
        price_book.install(connection, book, currency="usd", by="test", now_ns=time.time_ns())

    def _map(self, connection: Connection, name: str, tenant_id: str, plan: str) -> None:
        now_ns = time.time_ns()
        customer = customers.add(
            connection,
            name,
            email="",
            by="test",
            now_ns=now_ns,
            entropy=SeededEntropy(next(self._numbers)),
        )
        party = tenants.Party(customer.customer_id, plan)
        tenants.map_tenant(
            connection, self._appliance_id, tenant_id, party, since_s=0, by="test", now_ns=now_ns
        )

    def _cic(self, *arguments: str) -> Any:
        command = [*self.site.command[:-2], "control-plane", "--home", str(self.control_home)]
        done = subprocess.run(
            [*command, "--json", *arguments], capture_output=True, text=True, timeout=60, check=True
        )
        return json.loads(done.stdout) if done.stdout.strip() else None

    # Processes

    def start_control(self) -> bool:
        """False when a fault point ended it before it answered."""
        self.control.start("control-plane", "--home", str(self.control_home), "serve")
        deadline = time.monotonic() + CALL_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/key", timeout=1).close()
                return True
            if not self.control.running:
                return False
            time.sleep(0.01)
        raise AssertionError(f"the control plane does not answer\n{self.control.told()}")

    def up(self) -> None:
        """Whatever does not run is started."""
        if not self.control.running:
            self.start_control()
        if not self.site.program.running:
            self.site.try_start()

    # Time

    def advance(self, seconds: int) -> None:
        """Stripe's clock and the programs' at one moment; then Stripe does what became due."""
        self.stripe.double.clock.advance(seconds)
        self.launcher.shift.seconds += seconds
        self.stripe.run(self.stripe.double.settle())

    def leap(self, seconds: int) -> None:
        """The control plane's machine is off for so long. What it had sent has arrived before."""
        if seconds:
            self.control.kill()
            time.sleep(0.05)
            self.advance(seconds)

    # Load

    def step(self, chance: random.Random) -> None:
        """A few requests at once; then what there is is sealed and shipped."""
        list(self._clients.map(self._ask, [chance.random() for _ in range(AT_ONCE)]))
        for path in ("/v1/manifests/seal", "/v1/sync/now"):
            with contextlib.suppress(OSError, http.client.HTTPException, SiteFailure):
                self.site.admin("POST", path)

    def _ask(self, seed: float) -> None:
        chance = random.Random(seed)
        name = f"r{next(self._numbers)}"
        key = chance.choice(self._keys)
        streamed = chance.random() < 0.5
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": " ".join([name] * chance.randint(1, 300))}],
            "max_tokens": chance.randint(1, 40),
            "stream": streamed,
        }
        data = json.dumps(body).encode()
        headers = {**key.bearer, "x-request-id": name, "Content-Type": "application/json"}
        url = f"{self.site.base_url}/chat/completions"
        request = urllib.request.Request(url, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=ASK_S) as answer:
                content = answer.read()
        except (OSError, http.client.HTTPException):
            return
        if not streamed or b"data: [DONE]" in content:
            told = figures("chat", body)
            self.answered[name] = Tokens(1, told.input, told.cached, told.output)

    # Killing

    def round(self, chance: random.Random, point: str, hit: int, *, deadline_s: float) -> bool:
        """Load until the process has died at that point; False when it was never reached."""
        self.up()
        victim = self.site.program if point in names(SITE) else self.control
        self.launcher.armed.arm(point, hit)
        deadline = time.monotonic() + deadline_s
        while victim.running and time.monotonic() < deadline:
            self.stripe.double.webhooks.duplicates = chance.choice((0, 0, 1, 3))
            self.step(chance)
            self.advance(chance.choice((5, 30, 90, 400)))
        self.launcher.armed.disarm()
        died = not victim.running
        if died:
            status = self.launcher.status(victim.pid)
            assert status == -9, f"{point}: ended with {status}\n{victim.told()}"
            self.kills[point] = self.kills.get(point, 0) + 1
        return died

    def arrange(self, point: str) -> bool:
        """Bring about what leads to a point that is seldom reached; False for the others."""
        if "late item" in point:
            # Sealed now, received when Stripe takes no event of it any more.
            self.up()
            self.control.kill()
            self.step(random.Random(point))
            self.advance(36 * DAY_S)
        elif "looks an hour up" in point:
            # Sent, answer lost, and by then too old to be sent again.
            self.up()
            self.stripe.double.faults.plan("answer_lost", METER_EVENTS, count=3)
            self.step(random.Random(point))
            self.pause()
            self.control.kill()
            self.advance(14 * HOUR_S)
        elif "delivery makes a" in point:
            self.up()
            self.newcomer()
        else:
            return False
        return True

    def pause(self) -> None:
        """Let delivery have its turn."""
        time.sleep(0.3)

    # The end

    def settled(self) -> Sheet:
        """No more faults: seal, ship, bill until nothing waits; then add up what all books say."""
        self.launcher.armed.disarm()
        self.stripe.double.faults.clear()
        self.up()
        self.site.wait_idle()
        for turn in range(SETTLE_TURNS):
            self.site.admin("POST", "/v1/manifests/seal")
            with contextlib.suppress(SiteFailure):
                self.site.admin("POST", "/v1/sync/now")
            if self._rests():
                break
            self.advance(10 * MINUTE_S if turn < 40 else 2 * HOUR_S)
            time.sleep(0.15)
        self.advance(LAG_S)  # until Stripe's own sums show it
        self.site.program.stop()
        self.control.stop()
        return balance(self.books())

    def _rests(self) -> bool:
        """Everything was received, and delivery has nothing more to do."""
        state = self.site.admin("GET", "/v1/sync")
        if state["lag_manifests"]:
            return False
        with closing(sqlite3.connect(self.control_home / "control-plane.db")) as connection:
            marks = ", ".join("?" * (len(TAKEN) + 2))
            (open_rows,) = connection.execute(
                f"SELECT count(*) FROM outbox WHERE state NOT IN ({marks})",
                (*TAKEN, "late", "ambiguous"),
            ).fetchone()
        return not open_rows

    def reconciled(self) -> tuple[int, list[dict[str, str]]]:
        """The product's own report, when everything rests: its exit code and its rows."""
        log, table = self.control_home.parent / "reconcile.log", self.control_home / "report.csv"
        log.touch()
        program = Program(self.launcher, "", log)
        program.start(
            *("control-plane", "--home", str(self.control_home), "reconcile", "--csv", str(table))
        )
        code = self.launcher.wait(program.pid)
        with table.open(newline="", encoding="utf-8") as rows:
            return code, list(csv.DictReader(rows))

    def books(self) -> Books:
        books = Books(answered=dict(self.answered))
        for received in self.engine.requests:
            name = received.json["messages"][0]["content"].partition(" ")[0]
            told = figures("chat", received.json)
            output = told.output if received.ended_at is not None else received.tokens_sent
            books.served[name] = Tokens(1, told.input, told.cached, output)
        read_site(books, self.site.home / "ledger.db")
        read_control_plane(books, self.control_home / "control-plane.db")
        account = self.stripe.double.account
        items = list(account.objects["invoiceitem"].values())
        read_stripe(books, self.stripe.double.usage(), items)
        return books

    def close(self) -> None:
        self.site.kill()
        self.control.kill()
        self._clients.shutdown()


@contextlib.contextmanager
def world(*, naive: str = "") -> Iterator[World]:
    """Everything, prepared and running; taken away at the end."""
    folder = Path(tempfile.mkdtemp(prefix="cl-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stripe = stack.enter_context(double_in_thread())
        engine = stack.enter_context(engine_in_thread())
        port = _free_port()
        launcher = Launcher(
            folder,
            {
                "CIC_SYNC_BACKOFF_S": "0.05",
                "CIC_SYNC_BACKOFF_S_MAX": "0.2",
                "CICP_INGEST_REQUESTS_PER_MIN": "1000000",
                "CICP_LISTEN_ADDRESS": f"127.0.0.1:{port}",
                "CICP_STRIPE_API_KEY": stripe.double.api_key,
                "CICP_STRIPE_API_BASE": stripe.double.base_url,
                "CICP_STRIPE_WEBHOOK_SECRET": stripe.double.webhook_secret,
            },
        )
        stack.callback(launcher.close)
        stripe.double.aggregation_lag_s = LAG_S
        stripe.double.endpoint(f"http://127.0.0.1:{port}/webhooks/stripe")
        made = World(folder, launcher, engine, stripe, port, naive=naive)
        stack.callback(made.close)
        made.prepare()
        yield made


def _free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
