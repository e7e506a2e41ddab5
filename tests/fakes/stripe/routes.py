"""Which call is done by what, and by which type of the SDK its parameters are checked."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import stripe.params as v1
import stripe.params.test_helpers as helpers
import stripe.params.v2.core as v2
from stripe.params import billing

from tests.fakes.stripe import (
    billing_credits,
    catalog,
    customers,
    invoice_items,
    invoices,
    meters,
    subscriptions,
    test_clocks,
    webhooks,
)
from tests.fakes.stripe.errors import ApiError

METER_EVENTS = "/v1/billing/meter_events"


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """One call of the API."""

    method: str
    path: str
    shape: Any  # a type of `stripe.params`, or None where anything goes
    run: Callable[..., Any]


def _nothing(*_: Any) -> Any:
    raise AssertionError("meter events are recorded by the server itself: they have a lag")


ROUTES = (
    Route("POST", METER_EVENTS, billing.MeterEventCreateParams, _nothing),
    Route(
        "POST",
        "/v1/billing/meter_event_adjustments",
        billing.MeterEventAdjustmentCreateParams,
        meters.cancel,
    ),
    Route("POST", "/v1/billing/meters", billing.MeterCreateParams, meters.create),
    Route("GET", "/v1/billing/meters", billing.MeterListParams, meters.listed),
    Route("GET", "/v1/billing/meters/{id}", billing.MeterRetrieveParams, meters.retrieve),
    Route("POST", "/v1/billing/meters/{id}", billing.MeterUpdateParams, meters.update),
    Route(
        "POST",
        "/v1/billing/meters/{id}/deactivate",
        billing.MeterDeactivateParams,
        meters.deactivate,
    ),
    Route(
        "POST",
        "/v1/billing/meters/{id}/reactivate",
        billing.MeterReactivateParams,
        meters.reactivate,
    ),
    Route(
        "GET",
        "/v1/billing/meters/{id}/event_summaries",
        billing.MeterEventSummaryListParams,
        meters.summaries,
    ),
    Route("POST", "/v1/customers", v1.CustomerCreateParams, customers.create),
    Route("GET", "/v1/customers", v1.CustomerListParams, customers.listed),
    Route("GET", "/v1/customers/search", v1.CustomerSearchParams, customers.search),
    Route("GET", "/v1/customers/{customer}", v1.CustomerRetrieveParams, customers.retrieve),
    Route("POST", "/v1/customers/{customer}", v1.CustomerUpdateParams, customers.update),
    Route("DELETE", "/v1/customers/{customer}", v1.CustomerDeleteParams, customers.delete),
    Route("POST", "/v1/products", v1.ProductCreateParams, catalog.create_product),
    Route("GET", "/v1/products", v1.ProductListParams, catalog.listed_products),
    Route("GET", "/v1/products/{id}", v1.ProductRetrieveParams, catalog.retrieve_product),
    Route("POST", "/v1/products/{id}", v1.ProductUpdateParams, catalog.update_product),
    Route("POST", "/v1/prices", v1.PriceCreateParams, catalog.create_price),
    Route("GET", "/v1/prices", v1.PriceListParams, catalog.listed_prices),
    Route("GET", "/v1/prices/{price}", v1.PriceRetrieveParams, catalog.retrieve_price),
    Route("POST", "/v1/prices/{price}", v1.PriceUpdateParams, catalog.update_price),
    Route("POST", "/v1/subscriptions", v1.SubscriptionCreateParams, subscriptions.create),
    Route("GET", "/v1/subscriptions", v1.SubscriptionListParams, subscriptions.listed),
    Route(
        "GET",
        "/v1/subscriptions/{subscription}",
        v1.SubscriptionRetrieveParams,
        subscriptions.retrieve,
    ),
    Route(
        "POST",
        "/v1/subscriptions/{subscription}",
        v1.SubscriptionUpdateParams,
        subscriptions.update,
    ),
    Route(
        "DELETE",
        "/v1/subscriptions/{subscription}",
        v1.SubscriptionCancelParams,
        subscriptions.cancel,
    ),
    Route(
        "POST",
        "/v1/subscription_items",
        v1.SubscriptionItemCreateParams,
        subscriptions.create_item,
    ),
    Route(
        "GET", "/v1/subscription_items", v1.SubscriptionItemListParams, subscriptions.listed_items
    ),
    Route(
        "GET",
        "/v1/subscription_items/{item}",
        v1.SubscriptionItemRetrieveParams,
        subscriptions.retrieve_item,
    ),
    Route(
        "POST",
        "/v1/subscription_items/{item}",
        v1.SubscriptionItemUpdateParams,
        subscriptions.update_item,
    ),
    Route(
        "DELETE",
        "/v1/subscription_items/{item}",
        v1.SubscriptionItemDeleteParams,
        subscriptions.delete_item,
    ),
    Route("POST", "/v1/invoices", v1.InvoiceCreateParams, invoices.create),
    Route("GET", "/v1/invoices", v1.InvoiceListParams, invoices.listed),
    Route("POST", "/v1/invoices/create_preview", v1.InvoiceCreatePreviewParams, invoices.preview),
    Route("GET", "/v1/invoices/{invoice}", v1.InvoiceRetrieveParams, invoices.retrieve),
    Route("POST", "/v1/invoices/{invoice}", v1.InvoiceUpdateParams, invoices.update),
    Route("DELETE", "/v1/invoices/{invoice}", v1.InvoiceDeleteParams, invoices.delete),
    Route("GET", "/v1/invoices/{invoice}/lines", v1.InvoiceLineItemListParams, invoices.lines),
    Route(
        "POST",
        "/v1/invoices/{invoice}/finalize",
        v1.InvoiceFinalizeInvoiceParams,
        invoices.finalize,
    ),
    Route("POST", "/v1/invoices/{invoice}/pay", v1.InvoicePayParams, invoices.pay),
    Route("POST", "/v1/invoices/{invoice}/void", v1.InvoiceVoidInvoiceParams, invoices.void),
    Route("POST", "/v1/invoiceitems", v1.InvoiceItemCreateParams, invoice_items.create),
    Route("GET", "/v1/invoiceitems", v1.InvoiceItemListParams, invoice_items.listed),
    Route(
        "GET",
        "/v1/invoiceitems/{invoiceitem}",
        v1.InvoiceItemRetrieveParams,
        invoice_items.retrieve,
    ),
    Route(
        "POST", "/v1/invoiceitems/{invoiceitem}", v1.InvoiceItemUpdateParams, invoice_items.update
    ),
    Route(
        "DELETE",
        "/v1/invoiceitems/{invoiceitem}",
        v1.InvoiceItemDeleteParams,
        invoice_items.delete,
    ),
    Route(
        "POST", "/v1/billing/credit_grants", billing.CreditGrantCreateParams, billing_credits.create
    ),
    Route(
        "GET", "/v1/billing/credit_grants", billing.CreditGrantListParams, billing_credits.listed
    ),
    Route(
        "GET",
        "/v1/billing/credit_grants/{id}",
        billing.CreditGrantRetrieveParams,
        billing_credits.retrieve,
    ),
    Route(
        "POST",
        "/v1/billing/credit_grants/{id}",
        billing.CreditGrantUpdateParams,
        billing_credits.update,
    ),
    Route(
        "POST",
        "/v1/billing/credit_grants/{id}/expire",
        billing.CreditGrantExpireParams,
        billing_credits.expire,
    ),
    Route(
        "POST",
        "/v1/billing/credit_grants/{id}/void",
        billing.CreditGrantVoidGrantParams,
        billing_credits.void,
    ),
    Route(
        "GET",
        "/v1/billing/credit_balance_summary",
        billing.CreditBalanceSummaryRetrieveParams,
        billing_credits.summary,
    ),
    Route(
        "GET",
        "/v1/billing/credit_balance_transactions",
        billing.CreditBalanceTransactionListParams,
        billing_credits.listed_transactions,
    ),
    Route(
        "POST", "/v1/webhook_endpoints", v1.WebhookEndpointCreateParams, webhooks.create_endpoint
    ),
    Route("GET", "/v1/webhook_endpoints", v1.WebhookEndpointListParams, webhooks.listed_endpoints),
    Route(
        "DELETE",
        "/v1/webhook_endpoints/{webhook_endpoint}",
        v1.WebhookEndpointDeleteParams,
        webhooks.delete_endpoint,
    ),
    Route("GET", "/v1/events", v1.EventListParams, webhooks.listed_events),
    Route("GET", "/v1/events/{id}", v1.EventRetrieveParams, webhooks.retrieve_event),
    Route("GET", "/v2/core/events", v2.EventListParams, webhooks.listed_thin_events),
    Route("GET", "/v2/core/events/{id}", v2.EventRetrieveParams, webhooks.retrieve_thin_event),
    Route(
        "POST",
        "/v2/core/event_destinations",
        v2.EventDestinationCreateParams,
        webhooks.create_destination,
    ),
    Route(
        "POST",
        "/v1/test_helpers/test_clocks",
        helpers.TestClockCreateParams,
        test_clocks.create,
    ),
    Route(
        "GET",
        "/v1/test_helpers/test_clocks/{test_clock}",
        helpers.TestClockRetrieveParams,
        test_clocks.retrieve,
    ),
    Route(
        "POST",
        "/v1/test_helpers/test_clocks/{test_clock}/advance",
        helpers.TestClockAdvanceParams,
        test_clocks.advance,
    ),
    Route(
        "DELETE",
        "/v1/test_helpers/test_clocks/{test_clock}",
        helpers.TestClockDeleteParams,
        test_clocks.delete,
    ),
)

_PATTERNS = tuple(
    (route, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route.path))) for route in ROUTES
)


def find(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """The call and the names in its path; 404 for what the double does not know."""
    for route, pattern in _PATTERNS:
        if route.method == method and (match := pattern.fullmatch(path)):
            return route, match.groupdict()
    raise ApiError(404, f"Unrecognized request URL ({method}: {path}).", begun=False)
