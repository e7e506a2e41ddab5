"""Billing through Stripe as it runs: inside `serve` with webhooks, and from the command line."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.controlplane.database import Database
from appliance.controlplane.server import serving
from appliance.controlplane.service import open_control_plane
from appliance.controlplane.settings import ControlHome, load
from appliance.wire.command import ExitCode
from tests.fakes.command_line import Done, cic
from tests.fakes.stripe.double import StripeDouble
from tests.fakes.stripe_side import DAY_S, HOUR_S, put, states

WAIT_S = 20.0


@pytest.fixture
async def double() -> AsyncIterator[StripeDouble]:
    async with StripeDouble() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    assert cic("control-plane", "--home", tmp_path / "C", "init").code == 0
    return tmp_path / "C"


async def told(double: StripeDouble, home: Path, *arguments: str) -> Done:
    """`cic --json control-plane … stripe …`, beside the double."""
    environ = {"CICP_STRIPE_API_KEY": double.api_key, "CICP_STRIPE_API_BASE": double.base_url}
    given = ("--json", "control-plane", "--home", home, "stripe", *arguments)
    return await asyncio.to_thread(cic, *given, environ=environ)


def this_hour_s() -> int:
    return int(time.time()) // HOUR_S * HOUR_S


def rows(home: Path, *new: tuple[str, int, int]) -> None:
    database = Database.open(f"sqlite:///{home / 'control-plane.db'}")
    for row_id, hour_s, quantity in new:
        put(database, row_id, hour_s, quantity)
    database.close()


def test_without_a_key_billing_waits_and_says_so(home: Path) -> None:
    rows(home, ("a", this_hour_s(), 1))
    shown = cic("--json", "control-plane", "--home", home, "stripe", "status")
    assert shown.code == 0
    assert shown.json["configured"] is False
    assert shown.json["states"] == [{"state": "pending", "rows": 1, "tokens": 1}]
    refused = cic("--json", "control-plane", "--home", home, "stripe", "deliver")
    assert refused.code != 0
    assert refused.error["code"] == "stripe_not_configured"


async def test_a_person_delivers_and_decides_from_the_command_line(
    home: Path, double: StripeDouble
) -> None:
    rows(home, ("a", this_hour_s(), 1_000), ("b", this_hour_s() - 400 * DAY_S, 2_000))
    made = await told(double, home, "provision")
    assert (made.code, made.json) == (0, {"routes": 1})
    done = await told(double, home, "deliver")
    assert done.code == 0
    assert (done.json["accepted"], done.json["late_items"]) == (1, 1)
    [meter] = double.account.objects["billing.meter"].values()
    meter["status"] = "inactive"
    rows(home, ("c", this_hour_s(), 5))
    assert (await told(double, home, "deliver")).json["refused"] == 1
    [held] = (await told(double, home, "quarantine", "list")).json
    assert (held["row_id"], held["state"], len(held["keys"])) == ("c", "quarantined", 1)
    meter["status"] = "active"
    assert (await told(double, home, "quarantine", "send", "c")).json == {"rows": 1}
    assert (await told(double, home, "deliver")).json["accepted"] == 1
    again = await told(double, home, "quarantine", "cancel", "c")
    assert again.error["code"] == "not_possible"
    shown = await told(double, home, "status")
    found = {one["state"]: one["rows"] for one in shown.json["states"]}
    assert found == {"accepted": 2, "late": 1}
    plain = cic("control-plane", "--home", home, "stripe", "status")
    assert "rows accepted" in plain.out


async def test_what_cannot_be_delivered_fails_the_command(home: Path, double: StripeDouble) -> None:
    rows(home, ("a", this_hour_s(), 1))
    double.faults.plan("unavailable", method="*", count=1_000)
    done = await told(double, home, "deliver")
    assert (done.code, done.json["failures"]) == (ExitCode.FAILED, 1)
    assert (await told(double, home, "status")).json["lanes"][0]["failures"] == 1


async def test_a_served_control_plane_delivers_and_hears_stripe(
    home: Path, double: StripeDouble
) -> None:
    settings = load(
        ControlHome(home),
        {
            "CICP_LISTEN_ADDRESS": "127.0.0.1:0",
            "CICP_STRIPE_API_KEY": double.api_key,
            "CICP_STRIPE_API_BASE": double.base_url,
            "CICP_STRIPE_WEBHOOK_SECRET": double.webhook_secret,
        },
    )
    rows(home, ("a", this_hour_s(), 1_000))
    plane = open_control_plane(ControlHome(home), settings=settings)
    try:
        async with serving(plane) as url:
            double.endpoint(f"{url}/webhooks/stripe")
            async with asyncio.timeout(WAIT_S):
                while states(plane.database) != {"a": "accepted"}:  # noqa: ASYNC110 - another loop's work
                    await asyncio.sleep(0.05)
            [customer] = double.account.objects["customer"].values()
            double.account.emit("customer.updated", customer)
            await double.settle()
            assert {one.status for one in double.webhooks.delivered} == {200}
            assert "customer.updated" in {one.event_type for one in double.webhooks.delivered}
    finally:
        plane.close()
    shown: dict[str, Any] = msgspec.json.decode((await told(double, home, "status")).out)
    assert shown["states"] == [{"state": "accepted", "rows": 1, "tokens": 1_000}]
