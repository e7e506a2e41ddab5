"""Billing as operators type it and as they ask for it over HTTP."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert

from appliance.controlplane import audit
from appliance.controlplane.billing.billing_api import BILLING_ROUTES
from appliance.controlplane.billing.billing_errors import BadAmount, UnknownCustomer
from appliance.controlplane.billing.posting import post_manifest
from appliance.controlplane.errors import BadUpload
from appliance.controlplane.operator_api import OperatorCall
from appliance.controlplane.service import ControlPlane, open_control_plane
from appliance.controlplane.settings import ControlHome
from appliance.controlplane.site_tables import SITES
from appliance.manifests.reported import ReportedState
from appliance.wire.command import ExitCode
from tests.fakes.billing import ALICE, HOUR, NOW_NS, SITE, line, manifest
from tests.fakes.command_line import Done, cic

BUSINESS = ("--plan", "business")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    assert cic("control-plane", "--home", tmp_path, "init").code == ExitCode.OK
    return tmp_path


@pytest.fixture
def plane(home: Path) -> Iterator[ControlPlane]:
    """The same control plane, open, with a site that reported usage of a tenant."""
    opened = open_control_plane(ControlHome(home))
    site = {
        "appliance_id": SITE,
        "name": "berlin",
        "customer": "Acme",
        "enrolled_at_ns": NOW_NS,
        "reported": ReportedState().to_bytes(),
        "epoch": 1,
        "accepted_through": 1,
        "head_sha256": "0" * 64,
        "frozen": False,
        "frozen_reason": "",
        "last_received_at_ns": NOW_NS,
        "lease_days": 30,
        "waiting": 0,
    }
    accepted = manifest(1, [line(tokens=(1_000_000, 0, 10))])
    opened.database.transact(lambda c: c.execute(insert(SITES).values(site)))
    opened.database.transact(lambda c: post_manifest(c, accepted, NOW_NS))
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def typed(home: Path) -> Any:
    def run(*words: object) -> Done:
        return cic("--json", "control-plane", "--home", home, *words)

    return run


def test_from_an_unmapped_tenant_to_the_exported_charges(
    plane: ControlPlane, typed: Any, tmp_path: Path
) -> None:
    held = typed("holds").json
    assert [(one["code"], one["input_tokens"]) for one in held] == [("TENANT_UNMAPPED", 1_000_000)]
    assert typed("customers", "add", "Acme", "--email", "pay@acme.example").code == ExitCode.OK
    assert typed("customers", "add", "Acme").error["code"] == "customer_exists"
    unknown = typed("tenants", "map", "berlin", "name-1", "Nobody", *BUSINESS)
    assert (unknown.code, unknown.error["code"]) == (ExitCode.FAILED, "unknown_customer")
    assert (
        typed("tenants", "map", "berlin", "who", "Acme", *BUSINESS).error["code"]
        == "unknown_tenant"
    )
    assert typed("tenants", "map", "paris", "*", "Acme", *BUSINESS).error["code"] == "unknown_site"
    gold = typed("tenants", "map", "berlin", "name-1", "Acme", "--plan", "gold")
    assert gold.error["code"] == "unknown_plan"
    mapped = typed("tenants", "map", "berlin", "name-1", "Acme", *BUSINESS).json
    assert mapped["released"] == {"billed": 1, "written_off": 0, "still_held": 0}
    assert typed("holds").json == []
    assert [one["plan"] for one in typed("tenants", "list", "--site", "berlin").json] == [
        "business"
    ]
    table, charges = tmp_path / "table.csv", tmp_path / "focus.csv"
    # The manifest itself was never stored, so what was posted is not what was signed.
    found = typed("reconcile", "--month", "2026-11", "--csv", table, "--focus", charges)
    assert found.code == ExitCode.DAMAGED
    assert found.json["total"]["cause"] == "LEDGER_DIFFERS pending"
    assert found.json["total"]["outbox"] == 1_000_010
    assert len(list(csv.DictReader(io.StringIO(table.read_text())))) == 3
    costs = [one["BilledCost"] for one in csv.DictReader(io.StringIO(charges.read_text()))]
    assert sorted(costs) == ["0.000004", "0.100000"]
    other = typed("reconcile", "--month", "2026-10")
    assert (other.code, other.json["rows"], other.json["sound"]) == (ExitCode.OK, [], True)
    acts = plane.database.read(lambda c: [one.action for one in audit.entries(c, 0)])
    assert acts[-2:] == ["create", "map"]


def test_a_write_off_needs_its_reason_and_says_what_it_did(plane: ControlPlane, typed: Any) -> None:
    assert typed("holds", "write-off").code == ExitCode.USAGE
    assert typed("holds", "write-off", "--reason", " ").error["code"] == "bad_amount"
    done = typed("holds", "write-off", "--site", "berlin", "--tenant", ALICE, "--reason", "demo")
    assert done.json == {"billed": 0, "written_off": 1, "still_held": 0}
    again = typed("holds", "release", "--reason", "after all")
    assert again.error["code"] == "nothing_held"


def test_prices_are_imported_and_shown(home: Path, typed: Any, tmp_path: Path) -> None:
    shown = cic("control-plane", "--home", home, "prices", "show")
    assert "example prices" in shown.out
    file = tmp_path / "book.toml"
    file.write_text(
        'currency = "usd"\n[[prices]]\nmodel = "llama"\nplan = "gold"\ninput = 5\n', "utf-8"
    )
    assert typed("prices", "import", file).json["version"] == 2
    assert typed("prices", "import", file).json["changed"] is False
    assert typed("prices", "show").json["version"] == 2
    file.write_text('currency = "eur"\n', "utf-8")
    assert typed("prices", "import", file).error["code"] == "bad_price_book"
    missing = typed("prices", "import", tmp_path / "none.toml")
    assert missing.error["code"] == "bad_price_book"


def test_credits_capacity_and_corrections(plane: ControlPlane, typed: Any) -> None:
    typed("customers", "add", "Acme")
    given = typed("credits", "grant", "Acme", 5_000, "--reason", "welcome", "--until", "30d").json
    assert [one["credit_id"] for one in typed("credits").json] == [given["credit_id"]]
    made = typed("capacity", "add", "Acme", 4, "--micros", 1_000, "--since", "2026-11-01").json
    assert typed("capacity", "end", "cap_none").error["code"] == "unknown_capacity"
    ended = typed("capacity", "end", made["capacity_id"], "--at", "2027-01-01").json
    assert (ended["units"], ended["until_s"]) == (4, 1_798_761_600)
    wrong = ("--kind", "input", "--model", "llama", "--region", "usa", "--reason", "lost")
    hour = ("--hour", "2026-11-22T19:00:00Z", *BUSINESS)
    adjusted = typed("adjust", "Acme", 10_000_000, *wrong, *hour).json
    assert adjusted["amount_micros"] == 1_000_000
    less = typed("adjust", *wrong, *hour, "Acme", "--", -10_000_001)
    assert less.error["code"] == "bad_amount"
    assert typed("adjust", *wrong, *hour, "Acme", "--", -10_000_000).json["quantity"] == -10_000_000


def ask(plane: ControlPlane, method: str, path: str, body: Any = None, **query: str) -> Any:
    route = next(one for one in BILLING_ROUTES if (one.method, one.path) == (method, path))
    raw = b"" if body is None else msgspec.json.encode(body)
    answer = route.handle(OperatorCall(plane, query, query, raw))
    return msgspec.json.decode(msgspec.json.encode(answer))


def test_the_same_over_http(plane: ControlPlane) -> None:
    acme = ask(plane, "POST", "/customers", {"name": "Acme"})["customer_id"]
    assert [one["customer_id"] for one in ask(plane, "GET", "/customers")] == [acme]
    mapping = {"site": "berlin", "tenant": "*", "customer": "Acme", "plan": "free"}
    assert ask(plane, "POST", "/tenants", mapping)["released"]["billed"] == 1
    assert ask(plane, "GET", "/tenants", site="berlin")[0]["tenant_id"] == "*"
    assert ask(plane, "GET", "/prices")["version"] == 1
    price = {"model": "m", "plan": "gold", "input": 3}
    book = {"currency": "usd", "prices": [price]}
    assert ask(plane, "POST", "/prices", book)["changed"]
    with pytest.raises(BadUpload):
        ask(plane, "POST", "/prices", {"currency": "usd", "price": []})
    credit = {"customer": acme, "micros": 7, "reason": "sorry"}
    assert ask(plane, "POST", "/credits", credit)["left_micros"] == 7
    assert len(ask(plane, "GET", "/credits")) == 1
    units = {"customer": acme, "units": 2, "micros_per_unit_month": 5, "since": "2026-11-01"}
    made = ask(plane, "POST", "/capacity", units)["capacity_id"]
    end = {"at": "2026-12-01"}
    assert ask(plane, "POST", "/capacity/{capacity}/end", end, capacity=made)["until_s"]
    assert len(ask(plane, "GET", "/capacity")) == 1
    more = {"customer": acme, "tokens": 5, "kind": "input", "model": "llama", "region": "USA"}
    more |= {"hour": "2026-11-22T19:00:00Z", "reason": "lost", "plan": "business"}
    assert ask(plane, "POST", "/adjustments", more)["quantity"] == 5
    assert len(ask(plane, "GET", "/adjustments")) == 1
    found = ask(plane, "GET", "/reconcile", customer=acme)
    assert found["total"]["free"] == 1_000_000
    assert found["total"]["adjusted"] == 5
    with pytest.raises(BadAmount):
        ask(plane, "GET", "/reconcile", **{"from": "2026-11-02", "to": "2026-11-01"})
    with pytest.raises(UnknownCustomer):
        ask(plane, "GET", "/reconcile", customer="Nobody")


def test_holds_over_http(plane: ControlPlane) -> None:
    assert ask(plane, "GET", "/holds", site="berlin")[0]["from_hour_s"] == HOUR
    still = ask(plane, "POST", "/holds/release", {"reason": "looked at", "site": "berlin"})
    assert still == {"billed": 0, "written_off": 0, "still_held": 1}
    gone = ask(plane, "POST", "/holds/write-off", {"reason": "a test"})
    assert gone["written_off"] == 1
