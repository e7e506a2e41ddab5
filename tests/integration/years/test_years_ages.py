"""Usage of every age, imported at once: a meter event or an item, at the price of its hour."""

from collections import Counter

import pytest

from tests.integration.years.years_desk import Desk, at_s, desk
from tests.integration.years.years_site import DAY_S, HOUR_S, S_NS, Use, Window

pytestmark = pytest.mark.timeout(180)


def book(since: str) -> str:
    """Output is 4.00 for a million until `since`, then 6.00; in the region `eu` a tenth more."""
    old, new = (
        f'[[prices]]\nmodel = "llama"\nplan = "business"\ninput = 1000000\ncached = 500000\n'
        f'output = {output}\nsince = "{moment}"\n'
        for output, moment in ((4_000_000, "1970-01-01T00:00:00Z"), (6_000_000, since))
    )
    return (
        f'currency = "usd"\nfree_tokens_per_month = 0\n{old}{new}'
        '[[regions]]\nregion = "eu"\nmultiplier_bp = 11000\n'
    )


def one(at_s_: int, output: int, tenant: str = "acme", sealed_s: int | None = None) -> Window:
    """A request, sealed a minute later unless said otherwise."""
    use = Use(at_s_ * S_NS, tenant, 1, "llama", "eu", 0, 0, output)
    return Window((at_s_ + 60 if sealed_s is None else sealed_s) * S_NS, (use,))


def items(made: Desk) -> Counter[tuple[str, int, int, int, str]]:
    """(customer, period's first and last second, tokens, price of a token) of each item."""
    names = made.customers()
    return Counter(
        (
            names[item["customer"]],
            item["period"]["start"],
            item["period"]["end"],
            item["quantity"],
            item["pricing"]["unit_amount_decimal"],
        )
        for item in made.late_items()
    )


def hour(at_s_: int) -> int:
    return at_s_ // HOUR_S * HOUR_S


def test_each_age_lands_where_it_belongs_at_the_price_of_its_time() -> None:
    """A month's invoice is final on the fourth at the latest, so all ages named here are items."""
    with desk("2028-04-20T10:25:00") as made:
        now_s = made.now_s
        ages = {
            "400 d": (now_s - 400 * DAY_S, 1),
            "36 d": (now_s - 36 * DAY_S, 10),
            "35 d": (now_s - 35 * DAY_S, 100),
            "34 d 23 h": (now_s - 35 * DAY_S + HOUR_S, 1_000),
            "19 d": (now_s - 19 * DAY_S, 10_000),
            "1 h": (now_s - HOUR_S, 100_000),
        }
        # The price changed in between, in the midst of March, on the hour.
        made.introduce(book("2028-03-15T12:00:00Z"), {"acme": "Acme"})
        made.site.live([one(*some) for some in sorted(ages.values())])
        made.carry()
        waiting = made.reconcile().told
        assert waiting["total"]["waiting"] == waiting["total"]["signed"] == 111_111
        made.deliver()
        old, new = "0.00044", "0.00066"
        y400, y36, y35, y34 = (hour(ages[age][0]) for age in ("400 d", "36 d", "35 d", "34 d 23 h"))
        assert items(made) == Counter(
            {
                ("Acme", y400, y400 + HOUR_S - 1, 1, old): 1,
                ("Acme", y36, y36 + HOUR_S - 1, 10, old): 1,
                # One item for a month and a price, however many hours.
                ("Acme", y35, y34 + HOUR_S - 1, 1_100, new): 1,
            }
        )
        assert made.metered() == Counter(
            {
                ("Acme", "llama_output_eu_business", hour(ages["19 d"][0])): 10_000,
                ("Acme", "llama_output_eu_business", hour(ages["1 h"][0])): 100_000,
            }
        )
        total = made.reconcile().told["total"]
        assert (total["stripe"], total["invoiced"], total["waiting"]) == (110_000, 1_111, 0)


def test_a_month_of_days_is_metered_while_its_invoice_is_a_draft_and_late_after() -> None:
    with desk("2028-03-20T10:00:00") as made:
        made.introduce(book("2030-01-01T00:00:00Z"), {"acme": "Acme", "globex": "Globex"})
        made.site.live([one(made.now_s - HOUR_S, 1), one(made.now_s - HOUR_S, 10, "globex")])
        made.carry()
        made.deliver()  # both have a subscription that began in March
        made.advance(at_s("2028-04-01T00:05:00") - made.now_s)
        first_s = at_s("2028-03-01T00:10:00")
        # The site was switched off before it sealed: a month old, and in time for the draft.
        made.site.live([one(first_s, 100, sealed_s=made.now_s)])
        made.carry()
        made.deliver()
        assert made.metered()["Acme", "llama_output_eu_business", first_s // HOUR_S * HOUR_S] == 100
        # Three days younger, and the invoice is final.
        made.advance(5 * HOUR_S)
        later_s = first_s + 3 * DAY_S
        made.site.live([one(later_s, 1_000, "globex", made.now_s)])
        made.carry()
        made.deliver()
        assert items(made) == {
            ("Globex", hour(later_s), hour(later_s) + HOUR_S - 1, 1_000, "0.00044"): 1
        }
        total = made.reconcile().told["total"]
        assert (total["stripe"], total["invoiced"], total["held"]) == (111, 1_000, 0)
