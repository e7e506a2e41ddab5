"""The state of one Stripe account in test mode: objects, usage, events, and the time.

Everything is plain JSON data, so that it can be written to a file and read again.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.fakes.stripe.clock import ShiftedClock
from tests.fakes.stripe.errors import malformed, missing

API_VERSION = "2026-10-28.endive"  # stripe/_api_version.py of SDK 16.1
LIST_LIMIT = 10  # page "Pagination" of the API reference: 10 unless told, at most 100
LIST_LIMIT_MAX = 100

Object = dict[str, Any]

# kind of object -> (prefix of its ids, what a refusal calls it)
KINDS = {
    "customer": ("cus", "customer"),
    "product": ("prod", "product"),
    "price": ("price", "price"),
    "billing.meter": ("mtr_test", "meter"),
    "subscription": ("sub", "subscription"),
    "subscription_item": ("si", "subscription item"),
    "invoice": ("in", "invoice"),
    "invoiceitem": ("ii", "invoiceitem"),
    "billing.credit_grant": ("credgr_test", "credit grant"),
    "billing.credit_balance_transaction": ("cbtxn_test", "credit balance transaction"),
    "webhook_endpoint": ("we", "webhook endpoint"),
    "v2.core.event_destination": ("ed_test", "event destination"),
    "test_helpers.test_clock": ("clock", "test clock"),
    "event": ("evt", "event"),
    "v2.core.event": ("evt_test", "event"),
}


class Account:
    """One account. `clock` is the double's own; a test clock stands in for it per customer."""

    def __init__(self, clock: ShiftedClock) -> None:
        self.clock = clock
        self.sequence = 0
        self.objects: dict[str, dict[str, Object]] = {kind: {} for kind in KINDS}
        self.meter_events: list[Object] = []  # in the order in which they came
        self.identifiers: dict[str, int] = {}  # of meter events -> when they are forgotten
        self.keys: dict[str, Object] = {}  # idempotency keys with their stored answers
        self.pending_errors: list[Object] = []  # of meter events, not yet reported
        self.pays = True  # whether what is charged automatically is paid
        self.request_id: str | None = None  # of the call under way
        self.request_key: str | None = None  # its idempotency key
        self.on_event: Callable[[Object], None] = lambda _event: None

    # Time

    def now(self, customer: str | None = None) -> int:
        """Seconds since 1970 UTC; frozen for a customer of a test clock."""
        holder = self.objects["customer"].get(customer or "")
        test_clock = holder.get("test_clock") if holder else None
        if test_clock is not None:
            frozen: int = self.objects["test_helpers.test_clock"][test_clock]["frozen_time"]
            return frozen
        return self.clock.now_s()

    # Objects

    def new_id(self, kind: str) -> str:
        self.sequence += 1
        prefix = KINDS[kind][0] if kind in KINDS else kind
        return f"{prefix}_Double{self.sequence:010d}"

    def add(self, kind: str, fields: Object) -> Object:
        """Store a new object; `id`, `object`, `livemode` and `created` unless given."""
        made: Object = {"id": fields.get("id") or self.new_id(kind), "object": kind}
        made |= {"livemode": False, "created": self.clock.now_s()} | fields
        made["id"] = made["id"] or self.new_id(kind)
        self.objects[kind][made["id"]] = made
        return made

    def get(self, kind: str, object_id: str, param: str = "id", status: int = 404) -> Object:
        found = self.objects[kind].get(object_id)
        if found is None:
            raise missing(KINDS[kind][1], object_id, param, status)
        return found

    def newest_first(self, kind: str) -> Iterator[Object]:
        """Lists of the API begin with what was created last."""
        return reversed(self.objects[kind].values())

    # Events

    def emit(self, event_type: str, subject: Object) -> Object:
        """A snapshot event; source: "Events" of the API reference, `stripe/_event.py`."""
        event = self.add(
            "event",
            {
                "api_version": API_VERSION,
                "data": {"object": json.loads(json.dumps(subject))},
                "pending_webhooks": 1,
                "request": {"id": self.request_id, "idempotency_key": self.request_key},
                "type": event_type,
            },
        )
        self.on_event(event)
        return event

    def emit_thin(self, event_type: str, data: Object, related: Object | None) -> Object:
        """A thin event of /v2: `data` is only in what is fetched; `stripe/v2/core/_event.py`."""
        event = self.add(
            "v2.core.event",
            {
                "type": event_type,
                "created": iso(self.clock.now_s()),
                "context": None,
                "reason": None,
                "changes": None,
                "snapshot_event": None,
                "data": data,
            }
            | ({"related_object": related} if related is not None else {}),
        )
        self.on_event(event)
        return event

    # File

    def dump(self) -> str:
        return json.dumps(
            {
                "shift_s": self.clock.shift_s,
                "sequence": self.sequence,
                "objects": self.objects,
                "meter_events": self.meter_events,
                "identifiers": self.identifiers,
                "keys": self.keys,
                "pending_errors": self.pending_errors,
            }
        )

    def load(self, text: str) -> None:
        state = json.loads(text)
        self.clock.shift_s = state["shift_s"]
        self.sequence = state["sequence"]
        self.objects = {kind: {} for kind in KINDS} | state["objects"]
        for subscription in self.objects["subscription"].values():  # one object again, not two
            for item in subscription["items"]["data"]:
                self.objects["subscription_item"][item["id"]] = item
        self.meter_events = state["meter_events"]
        self.identifiers = state["identifiers"]
        self.keys = state["keys"]
        self.pending_errors = state["pending_errors"]

    def save(self, file: Path) -> None:
        beside = file.with_suffix(".new")
        beside.write_text(self.dump(), encoding="utf-8")
        beside.replace(file)


def iso(moment_s: int) -> str:
    """The form of moments in /v2."""
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def page(found: Iterator[Object], params: Object, url: str) -> Object:
    """One page of a list, by cursor; source: page "Pagination" of the API reference."""
    limit = params.get("limit", LIST_LIMIT)
    if not 1 <= limit <= LIST_LIMIT_MAX:
        raise malformed(f"Invalid limit: {limit} is not between 1 and 100", "limit")
    rows = list(found)
    ids = [row["id"] for row in rows]
    if after := params.get("starting_after"):
        if after not in ids:
            raise missing("object", after, "starting_after", 400)
        rows = rows[ids.index(after) + 1 :]
    elif before := params.get("ending_before"):
        if before not in ids:
            raise missing("object", before, "ending_before", 400)
        rows = rows[: ids.index(before)]
        more = len(rows) > limit
        return {"object": "list", "data": rows[-limit:], "has_more": more, "url": url}
    return {"object": "list", "data": rows[:limit], "has_more": len(rows) > limit, "url": url}


def within(moment: int, wanted: Any) -> bool:
    """A filter such as `created[gte]=…` or an exact `created=…`."""
    if wanted is None:
        return True
    if isinstance(wanted, int):
        return moment == wanted
    return bool(
        moment > wanted.get("gt", moment - 1)
        and moment >= wanted.get("gte", moment)
        and moment < wanted.get("lt", moment + 1)
        and moment <= wanted.get("lte", moment)
    )


def merged_metadata(old: dict[str, str], new: Any) -> dict[str, str]:
    """Keys are set one by one; an empty value takes one away, an empty string all.

    Source: page "Metadata": at most 50 keys, names of 40 and values of 500 characters.
    """
    if new == "":
        return {}
    merged = old | (new or {})
    merged = {key: value for key, value in merged.items() if value != ""}
    if len(merged) > 50:
        raise malformed("You can have up to 50 metadata keys", "metadata")
    for key, value in merged.items():
        if len(key) > 40 or "[" in key or "]" in key:
            raise malformed(f"Invalid metadata key: {key}", f"metadata[{key}]")
        if len(value) > 500:
            raise malformed("Metadata values can have up to 500 characters", f"metadata[{key}]")
    return merged
