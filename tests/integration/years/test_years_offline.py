"""A site that was 400 days without a wire: one stick, one import, every token billed once.

YEARS_WINDOWS says into how many windows the 400 days are cut. 115,200 is one every five minutes
(`make years`): a measurement, whose figures are logged. The ages are the same with few of them.
YEARS_DATABASE_URL names an empty PostgreSQL database for the control plane; SQLite without it.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

import pytest

from tests.integration.years.years_desk import Desk, Ran, at_s, desk
from tests.integration.years.years_site import DAY_S, HOUR_S, S_NS, Use, Used, Window

WINDOWS = int(os.environ.get("YEARS_WINDOWS", "1200"))
DATABASE_URL = os.environ.get("YEARS_DATABASE_URL", "")
IMPORT_S_MAX = 600.0
RSS_MAX = 1 << 30
SPAN_S = 400 * DAY_S
NOW = "2028-04-06T10:25:00"  # behind it a leap day, and each clock change of New York twice
CHANGE = "2027-10-31T01:00:00"  # of prices: in the hour that Berlin has twice
PAYS = {"acme": "Acme", "globex": "Globex"}
MODELS = ("llama", "qwen")
REGIONS = {"eu": 11_000, "usa": 10_000}
MICROS = {
    "input": (1_000_000, 2_000_000),
    "cached": (500_000, 500_000),
    "output": (4_000_000, 6_000_000),
}
_log = logging.getLogger(__name__)


class Billed(NamedTuple):
    """An invoice item for late usage."""

    customer: str
    title: str
    month: str
    price: str  # of a token, in cents
    first_s: int
    last_s: int
    tokens: int


def book() -> str:
    """All prices before and after the change."""
    prices = "".join(
        f'[[prices]]\nmodel = "{model}"\nplan = "business"\nsince = "{since}"\n'
        + "".join(f"{kind} = {both[new]}\n" for kind, both in MICROS.items())
        for model in MODELS
        for new, since in enumerate(("1970-01-01T00:00:00Z", f"{CHANGE}Z"))
    )
    regions = "".join(
        f'[[regions]]\nregion = "{name}"\nmultiplier_bp = {bp}\n' for name, bp in REGIONS.items()
    )
    return f'currency = "usd"\nfree_tokens_per_month = 0\n{prices}{regions}'


def windows(now_s: int, count: int) -> Iterator[Window]:
    """`count` windows, one after the other, the last of which is sealed a minute ago."""
    first_s = now_s - SPAN_S
    for number in range(count):
        begin_s = first_s + SPAN_S * number // count
        end_s = first_s + SPAN_S * (number + 1) // count
        yield Window(
            (end_s - 60) * S_NS,
            tuple(_use(number + some, begin_s + 30 * some + number % 29) for some in range(3)),
        )


def _use(number: int, at_s_: int) -> Use:
    chosen = number * 7 + number // 11
    return Use(
        at_ns=at_s_ * S_NS + 999_999_999 * (number % 2),
        tenant=tuple(PAYS)[chosen % 2],
        key=number % 3,
        model=MODELS[chosen // 2 % 2],
        region=tuple(REGIONS)[chosen // 2 % 2],
        input=800 + number % 101,
        cached=number % 50,
        output=60 + number % 37,
    )


def expected(made: Desk) -> tuple[Counter[tuple[str, str, int]], set[Billed]]:
    """By plain sums of what was used: meter events of this month, items of those before."""
    month_s = at_s("2028-04-01T00:00:00")
    events: Counter[tuple[str, str, int]] = Counter()
    late: dict[tuple[str, str, str, str], list[tuple[int, int]]] = {}
    for used, tokens in made.site.used.items():
        customer = PAYS[used.tenant]
        if used.hour_s >= month_s:
            meter = f"{used.model}_{used.kind}_{used.region}_business"
            events[customer, meter, used.hour_s] += tokens
        else:
            title = f"{used.model}: {used.kind} tokens ({used.region}, business), reported late"
            month = f"{datetime.fromtimestamp(used.hour_s, UTC):%Y-%m}"
            late.setdefault((customer, title, month, price(used)), []).append((used.hour_s, tokens))
    return events, {
        Billed(
            *place,
            min(hour_s for hour_s, _ in some),
            max(hour_s for hour_s, _ in some) + HOUR_S - 1,
            sum(tokens for _, tokens in some),
        )
        for place, some in late.items()
    }


def price(used: Used) -> str:
    """Of one token, in cents."""
    micros = MICROS[used.kind][used.hour_s >= at_s(CHANGE)]
    cents = Decimal(micros) * REGIONS[used.region] / 10**4 / 10**12 * 100
    return f"{cents.normalize():f}"


def late_items(made: Desk) -> list[Billed]:
    names = made.customers()
    return [
        Billed(
            names[item["customer"]],
            item["description"],
            f"{datetime.fromtimestamp(item['period']['start'], UTC):%Y-%m}",
            item["pricing"]["unit_amount_decimal"],
            item["period"]["start"],
            item["period"]["end"],
            item["quantity"],
        )
        for item in made.late_items()
    ]


def told(name: str, ran: Ran, **counts: int) -> None:
    each = ", ".join(f"{count / ran.seconds:,.0f} {what}/s" for what, count in counts.items())
    _log.info("%-10s %7.1f s, at most %4d MiB  %s", name, ran.seconds, ran.rss_bytes >> 20, each)


@pytest.mark.serial
@pytest.mark.timeout(120 + WINDOWS // 20)
def test_400_days_are_imported_at_once_and_every_token_is_billed_once() -> None:
    with desk(NOW) as made:
        made.introduce(book(), PAYS, DATABASE_URL)
        made.site.live(windows(made.now_s, WINDOWS))
        lines = made.site.requests  # each of a key and a model of its own in its window
        exported, taken = made.carry()
        told("export", exported, headers=WINDOWS, lines=lines)
        told("import", taken, headers=WINDOWS, lines=lines)
        assert taken.told["codes"] == {"ACCEPTED": WINDOWS}
        assert taken.seconds < IMPORT_S_MAX
        assert max(taken.rss_bytes, exported.rss_bytes) < RSS_MAX

        before = made.calls()
        delivered = made.deliver()
        calls = made.calls() - before
        told("deliver", delivered, calls=calls.total())
        _log.info("calls: %s", dict(calls))
        events, items = expected(made)
        assert made.metered() == events
        found = late_items(made)
        assert len(found) == len(set(found))
        assert set(found) == items
        assert calls["POST /v1/invoiceitems"] == len(items)

        checked = made.reconcile()
        total = checked.told["total"]
        told("reconcile", checked, rows=len(checked.told["rows"]))
        tokens = sum(made.site.used.values())
        assert total["signed"] == total["ledger"] == total["outbox"] == tokens
        assert total["stripe"] == sum(events.values())
        assert total["invoiced"] == sum(item.tokens for item in items)

        # The same stick once more: nothing is new, nothing is sent.
        (stick,) = made.stick.glob("*.usage")
        assert made.control("import", stick).told["codes"] == {"ALREADY_ACCEPTED": WINDOWS}
        again = made.deliver().told
        assert again["accepted"] == again["late_items"] == 0
