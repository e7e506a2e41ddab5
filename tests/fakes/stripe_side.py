"""A control plane's delivery to Stripe, wired to a double, for tests to turn by hand."""

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import Connection, insert, select

from appliance.controlplane.billing.outbox_table import OUTBOX
from appliance.controlplane.database import Database
from appliance.controlplane.payments.deliverer import Deliverer, Round
from appliance.controlplane.payments.invoices import Invoices
from appliance.controlplane.payments.late import LateBiller
from appliance.controlplane.payments.pace import Pace
from appliance.controlplane.payments.provisioning import CustomerCard, Provisioner
from appliance.controlplane.payments.stripe_api import StripeSdk
from appliance.controlplane.payments.stripe_facts import Facts
from appliance.controlplane.payments.stripe_objects import StripeApi
from appliance.domain.clock import Clock
from tests.fakes.entropy import SeededEntropy

HOUR_S = 3_600
DAY_S = 86_400
METER = "input/llama/eu/serverless"


def card(_: Connection, customer_id: str) -> CustomerCard:
    return CustomerCard(customer_id, name=f"Customer {customer_id}")


async def no_waiting(_: float) -> None:
    """For a pace that is not what the test is about."""


class StripeSide:
    """Everything between the outbox and the network; `seed` makes two of them different."""

    def __init__(
        self,
        database: Database,
        api: StripeApi,
        clock: Clock,
        *,
        seed: int = 0,
        late_quiet_s: int = 0,
        sleep: Callable[[float], Awaitable[None]] = no_waiting,
    ) -> None:
        entropy = SeededEntropy(seed)
        self.database = database
        self.api = api
        self.clock = clock
        self.provisioner = Provisioner(database, api, clock, entropy, card)
        self.invoices = Invoices(database, api, clock)
        self.deliverer = Deliverer(
            database,
            api,
            self.provisioner,
            self.invoices,
            clock,
            entropy,
            Pace(clock, sleep=sleep),
            currency="usd",
            late_quiet_s=late_quiet_s,
        )
        self.facts = Facts(database, api, clock)
        self.late = LateBiller(database, api, self.provisioner, clock, entropy)

    async def round(self) -> Round:
        """One pass over meter events, and over late items."""
        done = await self.deliverer.round()
        await self.late.round()
        return done

    def rows(self) -> list[dict[str, Any]]:
        return outbox(self.database)


def sdk(base_url: str, *, timeout_s: float = 5.0) -> StripeSdk:
    return StripeSdk("sk_test_double", api_base=base_url, timeout_s=timeout_s, connect_s=1.0)


def put(
    database: Database,
    row_id: str,
    hour_s: int,
    quantity: int,
    *,
    customer_id: str = "acme",
    meter: str = METER,
    micros: int = 150_000,
    multiplier_bp: int = 10_000,
    created_at_ns: int = 0,
) -> None:
    """A row as billing leaves it."""
    kind, model, region, plan = meter.split("/")
    values = {
        "row_id": row_id,
        "customer_id": customer_id,
        "meter": meter,
        "kind": kind,
        "model": model,
        "region": region,
        "plan": plan,
        "hour_s": hour_s,
        "quantity": quantity,
        "micros_per_million": micros,
        "multiplier_bp": multiplier_bp,
        "amount_micros": quantity * micros * multiplier_bp // 10**10,
        "source": "apl_test/1/1",
        "state": "pending",
        "identifier": f"evt_{row_id}",
        "created_at_ns": created_at_ns,
        "note": "",
    }
    database.transact(lambda connection: connection.execute(insert(OUTBOX).values(**values)))


def outbox(database: Database) -> list[dict[str, Any]]:
    """Every row, in the order of ids."""

    def read(connection: Connection) -> list[dict[str, Any]]:
        rows = connection.execute(select(OUTBOX).order_by(OUTBOX.c.row_id)).mappings()
        return [dict(row) for row in rows]

    return database.read(read)


def states(database: Database) -> dict[str, str]:
    return {row["row_id"]: row["state"] for row in outbox(database)}
