"""Products and prices. Source: "Products" and "Prices" of the API reference."""

from decimal import ROUND_HALF_UP, Decimal

from tests.fakes.stripe.account import Account, Object, merged_metadata, page, within
from tests.fakes.stripe.errors import ApiError, invalid, malformed, not_simulated

DECIMAL_PLACES_MAX = 12  # PriceCreateParams.unit_amount_decimal


def create_product(account: Account, params: Object) -> Object:
    own_id = params.get("id")
    if own_id is not None and own_id in account.objects["product"]:
        raise ApiError(400, "Product already exists.", code="resource_already_exists", param="id")
    made = account.add(
        "product",
        {
            "id": own_id,
            "active": params.get("active", True),
            "default_price": None,
            "description": params.get("description"),
            "images": params.get("images", []),
            "marketing_features": [],
            "metadata": merged_metadata({}, params.get("metadata")),
            "name": params["name"],
            "package_dimensions": None,
            "shippable": params.get("shippable"),
            "statement_descriptor": params.get("statement_descriptor"),
            "tax_code": params.get("tax_code"),
            "type": params.get("type", "service"),
            "unit_label": params.get("unit_label"),
            "updated": account.clock.now_s(),
            "url": params.get("url"),
        },
    )
    account.emit("product.created", made)
    return made


def retrieve_product(account: Account, params: Object, id: str) -> Object:  # noqa: A002 - the path's own name
    return account.get("product", id)


def update_product(account: Account, params: Object, id: str) -> Object:  # noqa: A002 - the path's own name
    found = account.get("product", id)
    for name in ("active", "name", "description", "unit_label", "default_price"):
        if name in params:
            found[name] = params[name]
    if "metadata" in params:
        found["metadata"] = merged_metadata(found["metadata"], params["metadata"])
    found["updated"] = account.clock.now_s()
    return found


def listed_products(account: Account, params: Object) -> Object:
    found = (
        one
        for one in account.newest_first("product")
        if params.get("active") in (None, one["active"])
        and ("ids" not in params or one["id"] in params["ids"])
        and within(one["created"], params.get("created"))
    )
    return page(found, params, "/v1/products")


def create_price(account: Account, params: Object) -> Object:
    for name in ("tiers", "tiers_mode", "custom_unit_amount", "currency_options"):
        if name in params:
            raise not_simulated(f"prices with {name}")
    if ("product" in params) == ("product_data" in params):
        raise malformed("You must specify either `product` or `product_data`", "product")
    unit_amount, unit_amount_decimal = amounts(params)
    recurring = _recurring(account, params.get("recurring"))
    _free_lookup_key(account, params)
    if "product" in params:
        product = account.get("product", params["product"], "product", 400)
    else:
        product = create_product(account, params["product_data"])
    made = account.add(
        "price",
        {
            "active": params.get("active", True),
            "billing_scheme": params.get("billing_scheme", "per_unit"),
            "currency": params["currency"],
            "custom_unit_amount": None,
            "lookup_key": params.get("lookup_key"),
            "metadata": merged_metadata({}, params.get("metadata")),
            "nickname": params.get("nickname"),
            "product": product["id"],
            "recurring": recurring,
            "tax_behavior": params.get("tax_behavior", "unspecified"),
            "tiers_mode": None,
            "transform_quantity": params.get("transform_quantity"),
            "type": "one_time" if recurring is None else "recurring",
            "unit_amount": unit_amount,
            "unit_amount_decimal": unit_amount_decimal,
        },
    )
    account.emit("price.created", made)
    return made


def amounts(params: Object) -> tuple[int | None, str]:
    """(unit_amount or None when it is no whole number of cents, unit_amount_decimal)."""
    if ("unit_amount" in params) == ("unit_amount_decimal" in params):
        raise malformed(
            "You must specify either `unit_amount` or `unit_amount_decimal`", "unit_amount"
        )
    given = params["unit_amount_decimal" if "unit_amount" not in params else "unit_amount"]
    exact = Decimal(given)
    exponent = exact.normalize().as_tuple().exponent
    if isinstance(exponent, int) and -exponent > DECIMAL_PLACES_MAX:
        raise malformed(
            f"Invalid decimal: {exact}; must contain at maximum 12 decimal places.",
            "unit_amount_decimal",
        )
    whole = int(exact) if exact == exact.to_integral_value() else None
    return whole, format(exact.normalize(), "f")


def cents(unit_amount_decimal: str, quantity: int) -> int:
    """Quantity × price, rounded once to whole cents; source: page "Pricing models", decimals."""
    exact = Decimal(unit_amount_decimal) * quantity
    return int(exact.to_integral_value(rounding=ROUND_HALF_UP))


def _recurring(account: Account, given: Object | None) -> Object | None:
    if given is None:
        return None
    usage_type = given.get("usage_type", "licensed")
    meter = given.get("meter")
    if usage_type == "metered" and meter is None:
        # Changelog 2025-03-31.basil: usage records are gone, a metered price needs a meter.
        raise invalid(
            "Prices with `usage_type=metered` must be backed by a meter", "recurring[meter]"
        )
    if meter is not None:
        if usage_type != "metered":
            raise invalid("A meter needs `usage_type=metered`", "recurring[usage_type]")
        if account.get("billing.meter", meter, "recurring[meter]", 400)["status"] != "active":
            # MeterService.deactivate: a deactivated meter cannot be attached to a price.
            raise invalid(f"The meter {meter} is not active", "recurring[meter]")
    return {
        "interval": given["interval"],
        "interval_count": given.get("interval_count", 1),
        "meter": meter,
        "trial_period_days": None,
        "usage_type": usage_type,
    }


def _free_lookup_key(account: Account, params: Object) -> None:
    """A lookup key names one price; `transfer_lookup_key` takes it from the one that has it."""
    wanted = params.get("lookup_key")
    if wanted is None:
        return
    for price in account.objects["price"].values():
        if price["lookup_key"] == wanted:
            if not params.get("transfer_lookup_key"):
                raise invalid(
                    f"A price (`{price['id']}`) already uses that lookup key.", "lookup_key"
                )
            price["lookup_key"] = None


def retrieve_price(account: Account, params: Object, price: str) -> Object:
    return account.get("price", price)


def update_price(account: Account, params: Object, price: str) -> Object:
    """Only what is no part of the amount can be changed."""
    found = account.get("price", price)
    if "lookup_key" in params and params["lookup_key"] != found["lookup_key"]:
        _free_lookup_key(account, params)
    for name in ("active", "nickname", "lookup_key"):
        if name in params:
            found[name] = params[name] if params[name] != "" else None
    if "metadata" in params:
        found["metadata"] = merged_metadata(found["metadata"], params["metadata"])
    account.emit("price.updated", found)
    return found


def listed_prices(account: Account, params: Object) -> Object:
    wanted = params.get("recurring", {})
    if len(params.get("lookup_keys", [])) > 10:
        raise malformed("At most 10 lookup keys", "lookup_keys")
    found = (
        one
        for one in account.newest_first("price")
        if params.get("active") in (None, one["active"])
        and params.get("currency") in (None, one["currency"])
        and params.get("product") in (None, one["product"])
        and params.get("type") in (None, one["type"])
        and ("lookup_keys" not in params or one["lookup_key"] in params["lookup_keys"])
        and within(one["created"], params.get("created"))
        and all((one["recurring"] or {}).get(key) == value for key, value in wanted.items())
    )
    return page(found, params, "/v1/prices")
