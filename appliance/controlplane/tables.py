"""Every table of the control plane: importing this makes the collection whole.

A module that defines tables has a line here, or its tables are never made.
"""

from appliance.controlplane import identity, site_tables
from appliance.controlplane.billing import (
    adjustments,
    capacity,
    customers,
    free_tier,
    journal,
    outbox_table,
    price_book,
    tenants,
    usage_table,
)
from appliance.controlplane.billing import credits as credit_tables  # the name is a builtin's
from appliance.controlplane.payments import stripe_tables
from appliance.controlplane.schema import METADATA

__all__ = [
    "METADATA",
    "adjustments",
    "capacity",
    "credit_tables",
    "customers",
    "free_tier",
    "identity",
    "journal",
    "outbox_table",
    "price_book",
    "site_tables",
    "stripe_tables",
    "tenants",
    "usage_table",
]
