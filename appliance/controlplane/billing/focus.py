"""What customers are charged, as a FOCUS 1.2 dataset (FinOps Open Cost and Usage Specification).

- The 21 mandatory columns, those conditional ones that apply, and columns of our own as `x_…`.
- A row of usage is customer x meter x UTC hour. What was free or reserved is a row at no cost, so
  that quantities are complete. A credit of a correction is a row of the category Credit and the
  class Correction; capacity units are Purchases, one for each month.
- Unit prices times quantities are exact; `BilledCost` is rounded to a micro, as in the outbox.

Source: the specification's pages "Columns", "Column Handling", "Date/Time Format", "Numeric Format"
and "Null Handling", version 1.2.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, func, select

from appliance.controlplane.billing import capacity, customers
from appliance.controlplane.billing.adjustments import ADJUSTED
from appliance.controlplane.billing.outbox_table import OUTBOX, OutboxState
from appliance.controlplane.billing.pricing import (
    HOUR_S,
    Kind,
    meter_key,
    month_start_s,
    next_month_s,
)
from appliance.controlplane.billing.reconcile import Question
from appliance.controlplane.billing.reconcile_table import csv_lines, money
from appliance.controlplane.billing.usage_table import USAGE, UsageState
from appliance.domain.clock import iso

ISSUER: Final = "CrossLogic"
SERVICE: Final = "CrossLogic Inference"
NOTHING: Final = Decimal(0)

MANDATORY: Final = (
    *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency"),
    *("BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass"),
    *("ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost"),
    *("EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit"),
    *("ProviderName", "PublisherName", "ServiceCategory", "ServiceName"),
)
CONDITIONAL: Final = (
    *("ChargeFrequency", "ConsumedQuantity", "ConsumedUnit", "ContractedUnitPrice"),
    *("ListUnitPrice", "PricingCategory", "RegionId", "RegionName", "ServiceSubcategory"),
    *("SkuId", "SkuMeter", "SkuPriceId"),
)
OWN: Final = ("x_Model", "x_Plan", "x_TokenKind", "x_Cause")
COLUMNS: Final = (*MANDATORY, *CONDITIONAL, *OWN)


def export(connection: Connection, question: Question, currency: str, now_ns: int) -> str:
    """CSV of every charge for the hours that are asked for."""
    names = {one.customer_id: one.name for one in customers.list_customers(connection)}
    rows = [
        *_billed(connection, question),
        *_unbilled(connection, question),
        *_credited(connection, question),
        *_flat(connection, question, now_ns // 1_000_000_000),
    ]
    for row in rows:
        row["BillingAccountName"] = names.get(str(row["BillingAccountId"]))
        row["BillingCurrency"] = currency.upper()
    rows.sort(
        key=lambda row: (
            row["BillingAccountId"],
            row["ChargePeriodStart"],
            row["SkuId"],
            row["ChargeCategory"],
            row["x_Cause"],
        )
    )
    return csv_lines(COLUMNS, rows)


def _billed(connection: Connection, question: Question) -> Iterator[dict[str, object]]:
    columns = OUTBOX.c
    keys = (
        *(columns.customer_id, columns.kind, columns.model, columns.region, columns.plan),
        *(columns.hour_s, columns.micros_per_million, columns.multiplier_bp),
    )
    query = (
        select(*keys, func.sum(columns.quantity), func.sum(columns.amount_micros))
        .where(
            columns.hour_s >= question.from_s,
            columns.hour_s < question.until_s,
            columns.state != OutboxState.CANCELLED.value,
        )
        .group_by(*keys)
    )
    if question.customer_id is not None:
        query = query.where(columns.customer_id == question.customer_id)
    if question.site is not None:
        query = query.where(columns.source.startswith(f"{question.site}/", autoescape=True))
    for row in connection.execute(query):
        quantity, amount = int(row[8]), int(row[9])
        price = unit_price(row.micros_per_million, row.multiplier_bp)
        yield {
            **_usage(row.customer_id, row.kind, row.model, row.region, row.plan, row.hour_s),
            **_costs(quantity, price, money(amount)),
            "ChargeDescription": f"{row.kind.capitalize()} tokens of {row.model}",
            "SkuPriceId": f"{_sku(row)}@{row.micros_per_million}x{row.multiplier_bp}",
            "x_Cause": "",
        }


def _unbilled(connection: Connection, question: Question) -> Iterator[dict[str, object]]:
    """What the allowance or capacity units covered."""
    columns = USAGE.c
    keys = (columns.customer_id, columns.model, columns.region, columns.plan, columns.hour_s)
    names = [(cause, kind) for cause in ("free", "reserved") for kind in Kind]
    sums = [func.sum(columns[f"{cause}_{kind.value}"]) for cause, kind in names]
    query = (
        select(*keys, *sums)
        .where(
            columns.hour_s >= question.from_s,
            columns.hour_s < question.until_s,
            columns.state == UsageState.BILLED.value,
        )
        .group_by(*keys)
    )
    if question.customer_id is not None:
        query = query.where(columns.customer_id == question.customer_id)
    if question.site is not None:
        query = query.where(columns.appliance_id == question.site)
    for row in connection.execute(query):
        for place, (cause, kind) in enumerate(names):
            quantity = int(row[len(keys) + place])
            if quantity:
                yield {
                    **_usage(
                        row.customer_id, kind.value, row.model, row.region, row.plan, row.hour_s
                    ),
                    **_costs(quantity, NOTHING, NOTHING),
                    "ChargeDescription": f"{kind.capitalize()} tokens of {row.model}: {cause}",
                    "SkuPriceId": f"{_sku(row, kind.value)}@{cause}",
                    "x_Cause": cause,
                }


def _credited(connection: Connection, question: Question) -> Iterator[dict[str, object]]:
    query = select(ADJUSTED).where(
        ADJUSTED.c.quantity < 0,
        ADJUSTED.c.hour_s >= question.from_s,
        ADJUSTED.c.hour_s < question.until_s,
    )
    if question.customer_id is not None:
        query = query.where(ADJUSTED.c.customer_id == question.customer_id)
    for row in () if question.site is not None else connection.execute(query):
        price = unit_price(row.micros_per_million, row.multiplier_bp)
        yield {
            **_usage(row.customer_id, row.kind, row.model, row.region, row.plan, row.hour_s),
            **_costs(row.quantity, price, money(row.amount_micros)),
            "ChargeCategory": "Credit",
            "ChargeClass": "Correction",
            "ChargeDescription": row.reason,
            "ChargeFrequency": "One-Time",
            "ConsumedQuantity": None,
            "ConsumedUnit": None,
            "SkuPriceId": f"{_sku(row)}@{row.micros_per_million}x{row.multiplier_bp}",
            "x_Cause": "credited",
        }


def _flat(connection: Connection, question: Question, now_s: int) -> Iterator[dict[str, object]]:
    """Capacity units, for every month that begins in the span, up to the present one."""
    if question.site is not None:
        return
    for unit in capacity.list_capacity(connection, question.customer_id):
        ends_s = min(question.until_s, now_s + 1)
        if unit.until_s is not None:
            ends_s = min(ends_s, unit.until_s)
        month_s = month_start_s(unit.since_s)
        while month_s < ends_s:
            if month_s >= question.from_s:
                yield _purchase(unit, month_s)
            month_s = next_month_s(month_s)


def _purchase(unit: capacity.Capacity, month_s: int) -> dict[str, object]:
    """One month; of one in which it began or ended, the part it ran."""
    fee = money(capacity.fee_micros(unit, month_s))
    sku = f"capacity/{unit.model}"
    return {
        **_usage(unit.customer_id, "capacity", unit.model, "", "", month_s),
        **_costs(1, fee, fee),
        "ChargeCategory": "Purchase",
        "ChargeDescription": f"{unit.units} capacity units of {unit.model}",
        "ChargeFrequency": "Recurring",
        "ChargePeriodEnd": _moment(next_month_s(month_s)),
        "ConsumedQuantity": None,
        "ConsumedUnit": None,
        "PricingUnit": "Months",
        "PricingCategory": "Committed",
        "SkuId": sku,
        "SkuMeter": "Capacity units",
        "SkuPriceId": f"{sku}@{unit.units}x{unit.micros_per_unit_month}",
        "x_Cause": "",
    }


def unit_price(micros_per_million: int, multiplier_bp: int) -> Decimal:
    """Of one token, in the currency's main unit, exactly: 1e-6 x 1e-6 x 1e-4."""
    return Decimal(micros_per_million * multiplier_bp).scaleb(-16)


def _usage(
    customer_id: str, kind: str, model: str, region: str, plan: str, hour_s: int
) -> dict[str, object]:
    month_s = month_start_s(hour_s)
    return {
        "BillingAccountId": customer_id,
        "BillingPeriodStart": _moment(month_s),
        "BillingPeriodEnd": _moment(next_month_s(month_s)),
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _moment(hour_s),
        "ChargePeriodEnd": _moment(hour_s + HOUR_S),
        "InvoiceIssuerName": ISSUER,
        "PricingCategory": "Standard",
        "PricingUnit": "Tokens",
        "ProviderName": ISSUER,
        "PublisherName": ISSUER,
        "RegionId": region or None,
        "RegionName": region or None,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": SERVICE,
        "ServiceSubcategory": "Generative AI",
        "SkuId": meter_key(kind, model, region, plan),
        "SkuMeter": f"{kind.capitalize()} tokens",
        "x_Model": model,
        "x_Plan": plan or None,
        "x_TokenKind": kind,
    }


def _costs(quantity: int, price: Decimal, billed: Decimal) -> dict[str, object]:
    return {
        "BilledCost": billed,
        "EffectiveCost": billed,
        "ListCost": price * quantity,
        "ContractedCost": price * quantity,
        "ListUnitPrice": price,
        "ContractedUnitPrice": price,
        "PricingQuantity": Decimal(quantity),
        "ConsumedQuantity": Decimal(quantity),
        "ConsumedUnit": "Tokens",
    }


def _sku(row: Any, kind: str | None = None) -> str:
    return meter_key(kind or row.kind, row.model, row.region, row.plan)


def _moment(moment_s: int) -> str:
    """`2026-11-22T19:00:00Z`, the form that FOCUS asks for."""
    return iso(moment_s * 1_000_000_000).replace(".000Z", "Z")
