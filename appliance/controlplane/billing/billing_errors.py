"""Errors of billing: what an operator asked for does not fit.

ControlPlaneError
└── BillingError
    ├── UnknownCustomer    there is no such customer
    ├── CustomerExists     another one has this name
    ├── UnknownCapacity    there is no such subscription of capacity units
    ├── UnknownTenant      the site never reported such a tenant
    ├── AlreadyBilled      the change would reach hours that are billed already
    ├── BadPriceBook       the file is no price book, or contradicts itself
    ├── UnknownPlan        the price book has no price for this plan
    ├── BadAmount          a quantity, an amount or a moment that cannot be
    ├── NothingHeld        nothing is held that fits what was asked
    └── Unbalanced         a journal entry whose lines do not add up to nothing
"""

from appliance.controlplane.errors import ControlPlaneError


class BillingError(ControlPlaneError):
    code = "billing_error"


class UnknownCustomer(BillingError):
    code = "unknown_customer"


class CustomerExists(BillingError):
    code = "customer_exists"


class UnknownCapacity(BillingError):
    code = "unknown_capacity"


class UnknownTenant(BillingError):
    code = "unknown_tenant"


class AlreadyBilled(BillingError):
    code = "already_billed"


class BadPriceBook(BillingError):
    code = "bad_price_book"


class UnknownPlan(BillingError):
    code = "unknown_plan"


class BadAmount(BillingError):
    code = "bad_amount"


class NothingHeld(BillingError):
    code = "nothing_held"


class Unbalanced(BillingError):
    code = "unbalanced"
