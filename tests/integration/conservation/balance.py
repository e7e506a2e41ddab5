"""The law of conservation: what the engine served is what is billed, plus lines that say why not.

    served by the engine = ledger + cut off
    ledger = Σ manifests = accepted = usage
    usage = held + free + reserved + outbox
    outbox = Stripe's meter events + invoice items for late usage + ambiguous ones not there

Ambiguous is what the product gave to a person: rows of one hour of which several sets fit Stripe's
sum (two rows of one quantity, say). What Stripe has of them must be one of those sets.

Everything is read from the files and the double as they are, by plain SQL and JSON: nothing here
asks the product what it believes.
"""

import base64
import json
import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TAKEN = ("accepted", "reconciled")
Place = tuple[str, str, int]  # Stripe's customer, event name, hour as seconds


@dataclass(frozen=True, slots=True)
class Tokens:
    """Input counts the cached ones, too."""

    requests: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.requests + other.requests,
            self.input + other.input,
            self.cached + other.cached,
            self.output + other.output,
        )

    @property
    def billable(self) -> int:
        """What is counted by meters: each token once, whatever its kind."""
        return self.input + self.output


@dataclass(frozen=True, slots=True)
class Recorded:
    status: str
    tokens: Tokens


@dataclass(slots=True)
class Books:
    """What every part says. Tokens of requests by name; sums for the rest."""

    served: dict[str, Tokens] = field(default_factory=dict)  # by the engine, in full or in part
    answered: dict[str, Tokens] = field(default_factory=dict)  # to clients, in full
    ledger: dict[str, list[Recorded]] = field(default_factory=dict)
    manifests: Tokens = Tokens()
    cumulative: Tokens = Tokens()  # as the newest header says
    accepted: Tokens = Tokens()
    usage: Tokens = Tokens()
    held: int = 0
    free: int = 0
    reserved: int = 0
    outbox: dict[str, int] = field(default_factory=dict)  # by state
    metered: dict[Place, int] = field(default_factory=dict)  # rows that Stripe is said to have
    ambiguous: dict[Place, list[int]] = field(default_factory=dict)  # rows a person decides on
    late: dict[str, int] = field(default_factory=dict)  # by late key
    stripe: dict[Place, int] = field(default_factory=dict)
    stripe_late: dict[str, list[int]] = field(default_factory=dict)  # quantities by late key

    @property
    def recorded(self) -> Tokens:
        return sum((one.tokens for some in self.ledger.values() for one in some), Tokens())


def read_site(books: Books, ledger: Path) -> None:
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        for name, status, *counts in connection.execute(
            "SELECT request_id, status, input_tokens, cached_tokens, output_tokens FROM records"
        ):
            books.ledger.setdefault(name, []).append(Recorded(status, Tokens(1, *counts)))
        for (envelope,) in connection.execute("SELECT envelope FROM manifests ORDER BY epoch, seq"):
            header = _header(envelope)
            books.manifests += _totals(header["totals"])
            books.cumulative = _totals(header["cumulative_totals"])


def read_control_plane(books: Books, database: Path) -> None:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        for row in connection.execute("SELECT envelope FROM manifests WHERE state = 'accepted'"):
            books.accepted += _totals(_header(row["envelope"])["totals"])
        for row in connection.execute("SELECT * FROM usage"):
            cached = row["cached_tokens"]
            tokens = Tokens(
                row["requests"], row["input_tokens"] + cached, cached, row["output_tokens"]
            )
            books.usage += tokens
            if row["state"] == "held":
                books.held += tokens.billable
            books.free += row["free_input"] + row["free_cached"] + row["free_output"]
            books.reserved += sum(row[f"reserved_{kind}"] for kind in ("input", "cached", "output"))
        customers = {
            row["key"]: row["stripe_id"]
            for row in connection.execute("SELECT * FROM stripe_objects WHERE kind = 'customer'")
        }
        metered: dict[Place, int] = defaultdict(int)
        outbox: dict[str, int] = defaultdict(int)
        late: dict[str, int] = defaultdict(int)
        for row in connection.execute(
            "SELECT o.*, d.event_name FROM outbox o LEFT JOIN stripe_deliveries d USING (row_id)"
        ):
            outbox[row["state"]] += row["quantity"]
            place = (str(customers.get(row["customer_id"])), row["event_name"], row["hour_s"])
            if row["state"] in TAKEN:
                metered[place] += row["quantity"]
            elif row["state"] == "ambiguous":
                books.ambiguous.setdefault(place, []).append(row["quantity"])
            elif row["state"] == "late":
                late[row["late_key"]] += row["quantity"]
        books.metered, books.outbox, books.late = dict(metered), dict(outbox), dict(late)


def read_stripe(books: Books, usage: dict[Place, int], items: list[dict[str, Any]]) -> None:
    books.stripe = {place: value for place, value in usage.items() if value}
    for item in items:
        if key := item["metadata"].get("late_key"):
            books.stripe_late.setdefault(key, []).append(item["quantity"])


@dataclass(slots=True)
class Sheet:
    """Both sides of the law in tokens, and what is wrong with it."""

    lines: list[tuple[str, int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = "\n".join(f"  {value:>12,}  {name}" for name, value in self.lines)
        return told + "".join(f"\n  WRONG: {one}" for one in self.wrong)


def balance(books: Books) -> Sheet:
    sheet = Sheet()
    cut_off = _requests(books, sheet)
    recorded = books.recorded
    for name, found in (
        ("Σ manifests", books.manifests),
        ("the newest header's cumulative totals", books.cumulative),
        ("accepted", books.accepted),
        ("usage at the control plane", books.usage),
    ):
        if found != recorded:
            sheet.wrong.append(f"{name} is {found}, the ledger is {recorded}")
    billed = sum(books.outbox.values())
    explained = books.held + books.free + books.reserved
    if books.usage.billable != explained + billed:
        sheet.wrong.append(
            f"usage is {books.usage.billable}, outbox and explained lines {explained + billed}"
        )
    undecided = _delivered(books, sheet)
    explained += undecided
    served = sum(tokens.billable for tokens in books.served.values())
    stripe = sum(books.stripe.values())
    stripe_late = sum(sum(some) for some in books.stripe_late.values())
    sheet.lines += [
        ("served by the engine", served),
        ("cut off by a kill (served less what was charged)", cut_off),
        ("ledger", recorded.billable),
        ("Σ manifests", books.manifests.billable),
        ("accepted", books.accepted.billable),
        ("free", books.free),
        ("reserved", books.reserved),
        ("held", books.held),
        ("outbox", billed),
        ("ambiguous and not at Stripe: a person decides", undecided),
        ("Stripe: meter events", stripe),
        ("Stripe: late invoice items", stripe_late),
    ]
    if served != cut_off + explained + stripe + stripe_late:
        sheet.wrong.append(
            f"served {served} is not explained {cut_off + explained} plus Stripe's "
            f"{stripe + stripe_late}"
        )
    return sheet


def _requests(books: Books, sheet: Sheet) -> int:
    """Request by request: engine against ledger. The tokens that kills cut off, charged or not."""
    cut_off = 0
    for name, tokens in books.served.items():
        found = books.ledger.get(name, [])
        if not found and name not in books.answered:
            # Killed before the opening was on the disk: the engine worked, nobody got anything.
            cut_off += tokens.billable
            continue
        if len(found) != 1:
            sheet.wrong.append(f"{name} was served and is {len(found)} times in the ledger")
            continue
        (one,) = found
        if one.status == "ok":
            if one.tokens != tokens:
                sheet.wrong.append(f"{name} was served {tokens} and is recorded as {one.tokens}")
        elif name in books.answered:
            sheet.wrong.append(f"{name} was answered in full and is recorded as {one.status}")
        else:
            cut_off += tokens.billable - one.tokens.billable
    for name, found in books.ledger.items():
        if name not in books.served:
            if any(one.status == "ok" for one in found):
                sheet.wrong.append(f"{name} is recorded as ok and was never served")
            cut_off -= sum(one.tokens.billable for one in found)
    for name in books.answered.keys() - books.served.keys():
        sheet.wrong.append(f"{name} was answered and never served")
    return cut_off


def _delivered(books: Books, sheet: Sheet) -> int:
    """The outbox against Stripe, by hour and by late item; how much of the ambiguous is absent."""
    undecided = 0
    for state, quantity in books.outbox.items():
        if state not in (*TAKEN, "late", "ambiguous"):
            sheet.wrong.append(f"{quantity} tokens of the outbox are still {state}")
    for place in sorted({*books.metered, *books.stripe, *books.ambiguous}, key=str):
        ours, theirs = books.metered.get(place, 0), books.stripe.get(place, 0)
        doubtful = books.ambiguous.get(place, [])
        if theirs - ours in _sums(doubtful):
            undecided += sum(doubtful) - (theirs - ours)
            continue
        word = "billed twice" if theirs > ours else "not billed"
        sheet.wrong.append(f"{abs(theirs - ours)} tokens {word}: {place}")
    for key in sorted(books.late.keys() | books.stripe_late.keys()):
        ours_late, items = books.late.get(key, 0), books.stripe_late.get(key, [])
        if items != [ours_late]:
            sheet.wrong.append(f"late item {key}: {ours_late} tokens, at Stripe {items}")
    return undecided


def _sums(quantities: list[int]) -> set[int]:
    """What some of them can add up to; 0 is none of them."""
    sums = {0}
    for quantity in quantities:
        sums |= {one + quantity for one in sums}
    return sums


def _header(envelope: bytes) -> dict[str, Any]:
    payload = json.loads(envelope)["payload"]
    found: dict[str, Any] = json.loads(base64.b64decode(payload))
    return found


def _totals(totals: dict[str, str]) -> Tokens:
    return Tokens(
        int(totals["requests"]),
        int(totals["input_tokens"]),
        int(totals["cached_tokens"]),
        int(totals["output_tokens"]),
    )
