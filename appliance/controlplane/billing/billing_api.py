"""The operator API of billing: the desk over HTTP, as routes beside those of the sites."""

from typing import Any, Final

import msgspec

from appliance.controlplane import sites
from appliance.controlplane.billing import (
    adjustments,
    capacity,
    customers,
    price_book,
    reconcile_table,
    tenants,
)
from appliance.controlplane.billing.adjustments import Correction
from appliance.controlplane.billing.billing_errors import BadAmount
from appliance.controlplane.billing.credits import list_credits
from appliance.controlplane.billing.desk import Desk
from appliance.controlplane.billing.holds import Selection
from appliance.controlplane.billing.price_book import BookFile, hour_of
from appliance.controlplane.billing.reconcile import Question, report
from appliance.controlplane.operator_api import ACTOR, OperatorCall, OperatorRoute

LAST_S: Final = 9_223_372_036  # as far as nanoseconds go


class _Customer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    email: str = ""


class _Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    site: str
    tenant: str
    customer: str
    plan: str
    since: str | None = None


class _Credit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    customer: str
    micros: int
    reason: str
    since: str | None = None
    until: str | None = None


class _Capacity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    customer: str
    units: int
    micros_per_unit_month: int
    model: str = "*"
    overage: bool = False
    since: str | None = None


class _End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at: str


class _Adjustment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    customer: str
    tokens: int
    kind: str
    model: str
    region: str
    hour: str
    plan: str
    reason: str


class _Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str
    site: str | None = None
    tenant: str | None = None
    code: str | None = None


def _desk(call: OperatorCall) -> Desk:
    plane = call.plane
    currency = plane.settings.billing.currency
    return Desk(plane.database, plane.clock, plane.entropy, currency=currency, actor=ACTOR)


def _now_hour(call: OperatorCall) -> int:
    return call.plane.clock.wall_ns() // 1_000_000_000 // 3_600 * 3_600


def _customers(call: OperatorCall) -> Any:
    return call.plane.database.read(customers.list_customers)


def _add_customer(call: OperatorCall) -> Any:
    asked = call.json(_Customer)
    return _desk(call).add_customer(asked.name, asked.email)


def _tenants(call: OperatorCall) -> Any:
    site = call.query.get("site")
    return call.plane.database.read(
        lambda connection: tenants.list_tenants(
            connection, sites.find(connection, site).appliance_id if site else None
        )
    )


def _map(call: OperatorCall) -> Any:
    asked = call.json(_Mapping)
    since_s = 0 if asked.since is None else hour_of(asked.since)
    return _desk(call).map_tenant(asked.site, asked.tenant, asked.customer, asked.plan, since_s)


def _prices(call: OperatorCall) -> Any:
    return call.plane.database.read(price_book.document)


def _import_prices(call: OperatorCall) -> Any:
    file = price_book.checked(call.json(BookFile))
    return _desk(call).import_prices(file)


def _credits(call: OperatorCall) -> Any:
    return call.plane.database.read(list_credits)


def _grant(call: OperatorCall) -> Any:
    asked = call.json(_Credit)
    since_s = _now_hour(call) if asked.since is None else hour_of(asked.since)
    until_s = None if asked.until is None else hour_of(asked.until)
    return _desk(call).grant_credit(asked.customer, asked.micros, asked.reason, since_s, until_s)


def _capacity(call: OperatorCall) -> Any:
    return call.plane.database.read(capacity.list_capacity)


def _add_capacity(call: OperatorCall) -> Any:
    asked = call.json(_Capacity)
    since_s = _now_hour(call) if asked.since is None else hour_of(asked.since)
    return _desk(call).add_capacity(
        asked.customer,
        asked.model,
        asked.units,
        asked.micros_per_unit_month,
        since_s,
        overage=asked.overage,
    )


def _end_capacity(call: OperatorCall) -> Any:
    return _desk(call).end_capacity(call.parts["capacity"], hour_of(call.json(_End).at))


def _adjustments(call: OperatorCall) -> Any:
    return call.plane.database.read(adjustments.list_adjustments)


def _adjust(call: OperatorCall) -> Any:
    asked = call.json(_Adjustment)
    correction = Correction(
        asked.customer,
        asked.kind,
        asked.model,
        asked.region,
        asked.plan,
        hour_of(asked.hour),
        asked.tokens,
    )
    return _desk(call).adjust(correction, asked.reason)


def _holds(call: OperatorCall) -> Any:
    query = call.query
    return _desk(call).list_holds(
        _selection(call, query.get("site"), query.get("tenant"), query.get("code"))
    )


def _release(call: OperatorCall) -> Any:
    asked = call.json(_Decision)
    selection = _selection(call, asked.site, asked.tenant, asked.code)
    return _desk(call).release(selection, asked.reason)


def _write_off(call: OperatorCall) -> Any:
    asked = call.json(_Decision)
    selection = _selection(call, asked.site, asked.tenant, asked.code)
    return _desk(call).write_off(selection, asked.reason)


def _selection(
    call: OperatorCall, site: str | None, tenant: str | None, code: str | None
) -> Selection:
    if site is None:
        return Selection(tenant_id=tenant, code=code)
    appliance_id = call.plane.database.read(
        lambda connection: sites.find(connection, site).appliance_id
    )
    return Selection(appliance_id=appliance_id, tenant_id=tenant, code=code)


def _reconcile(call: OperatorCall) -> Any:
    """The report with what was last read of Stripe: a request does not wait for Stripe."""
    query = call.query
    from_s = hour_of(query["from"]) if "from" in query else 0
    until_s = hour_of(query["to"]) if "to" in query else LAST_S
    if until_s <= from_s:
        raise BadAmount("The span ends before it begins.", next_step="Give a later `to`.")
    customer, site = query.get("customer"), query.get("site")
    now_ns, currency = call.plane.clock.wall_ns(), call.plane.settings.billing.currency

    def run(connection: Any) -> dict[str, Any]:
        question = Question(
            from_s,
            until_s,
            customers.find(connection, customer).customer_id if customer else None,
            sites.find(connection, site).appliance_id if site else None,
        )
        found = report(connection, question, currency=currency, now_ns=now_ns)
        return reconcile_table.as_object(found)

    return call.plane.database.read(run)


BILLING_ROUTES: Final = (
    OperatorRoute("GET", "/customers", _customers),
    OperatorRoute("POST", "/customers", _add_customer),
    OperatorRoute("GET", "/tenants", _tenants),
    OperatorRoute("POST", "/tenants", _map),
    OperatorRoute("GET", "/prices", _prices),
    OperatorRoute("POST", "/prices", _import_prices),
    OperatorRoute("GET", "/credits", _credits),
    OperatorRoute("POST", "/credits", _grant),
    OperatorRoute("GET", "/capacity", _capacity),
    OperatorRoute("POST", "/capacity", _add_capacity),
    OperatorRoute("POST", "/capacity/{capacity}/end", _end_capacity),
    OperatorRoute("GET", "/adjustments", _adjustments),
    OperatorRoute("POST", "/adjustments", _adjust),
    OperatorRoute("GET", "/holds", _holds),
    OperatorRoute("POST", "/holds/release", _release),
    OperatorRoute("POST", "/holds/write-off", _write_off),
    OperatorRoute("GET", "/reconcile", _reconcile),
)
