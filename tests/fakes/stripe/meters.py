"""Meters, what was metered, its cancellation and its sums.

Sources: pages "Record usage for billing with the API", "Create and configure a meter", "Meter
event", "Meter event summary" of the documentation; `stripe/params/billing/_meter_*.py`;
`stripe/events/_v1_billing_meter_error_report_triggered_event.py` for the codes of what goes wrong
after the answer. That a repeated identifier is refused with HTTP 400: langfuse/langfuse pull
request 16292, which quotes the answer.
"""

import re
from collections import defaultdict
from collections.abc import Iterator

from tests.fakes.stripe.account import Account, Object, iso, page
from tests.fakes.stripe.errors import ApiError, invalid, malformed

TEXT_MAX = 100
DIGITS_MAX = 15
PAST_MAX_S = 35 * 86_400
AHEAD_MAX_S = 300
IDENTIFIER_S = 86_400  # "at least 24 hours": the double keeps them exactly that long
CANCEL_S = 86_400
REPORT_S = 60  # how long errors are gathered before one report tells them; not documented
WINDOWS = {"hour": 3_600, "day": 86_400}


def create(account: Account, params: Object) -> Object:
    """An event name belongs to one active meter."""
    event_name = params["event_name"]
    if len(event_name) > TEXT_MAX or not event_name:
        raise malformed("Invalid event_name: at most 100 characters", "event_name")
    for meter in account.objects["billing.meter"].values():
        if meter["event_name"] == event_name and meter["status"] == "active":
            raise invalid(
                f"There is already an active meter with the event name {event_name}.", "event_name"
            )
    now = account.clock.now_s()
    made = account.add(
        "billing.meter",
        {
            "customer_mapping": params.get("customer_mapping")
            or {"event_payload_key": "stripe_customer_id", "type": "by_id"},
            "default_aggregation": params["default_aggregation"],
            "display_name": params["display_name"],
            "event_name": event_name,
            "event_time_window": params.get("event_time_window"),
            "status": "active",
            "status_transitions": {"deactivated_at": None},
            "updated": now,
            "value_settings": params.get("value_settings") or {"event_payload_key": "value"},
        },
    )
    account.emit("billing.meter.created", made)
    return made


def retrieve(account: Account, params: Object, id: str) -> Object:  # noqa: A002 - the path's own name
    return account.get("billing.meter", id)


def update(account: Account, params: Object, id: str) -> Object:  # noqa: A002 - the path's own name
    """Only the display name of a meter can be changed."""
    found = account.get("billing.meter", id)
    found["display_name"] = params.get("display_name", found["display_name"])
    found["updated"] = account.clock.now_s()
    return found


def deactivate(account: Account, params: Object, id: str) -> Object:  # noqa: A002 - the path's own name
    found = account.get("billing.meter", id)
    now = account.clock.now_s()
    found |= {"status": "inactive", "updated": now, "status_transitions": {"deactivated_at": now}}
    account.emit("billing.meter.deactivated", found)
    return found


def reactivate(account: Account, params: Object, id: str) -> Object:  # noqa: A002 - the path's own name
    found = account.get("billing.meter", id)
    if active(account, found["event_name"]) not in (None, found):
        raise invalid("There is already an active meter with that event name.")
    found |= {"status": "active", "status_transitions": {"deactivated_at": None}}
    found["updated"] = account.clock.now_s()
    account.emit("billing.meter.reactivated", found)
    return found


def listed(account: Account, params: Object) -> Object:
    found = (
        one
        for one in account.newest_first("billing.meter")
        if params.get("status") in (None, one["status"])
    )
    return page(found, params, "/v1/billing/meters")


def active(account: Account, event_name: str) -> Object | None:
    """The active meter of a name, else the newest inactive one, else None."""
    named = [
        one for one in account.objects["billing.meter"].values() if one["event_name"] == event_name
    ]
    return next((one for one in named if one["status"] == "active"), named[-1] if named else None)


def record(account: Account, params: Object, lag_s: int) -> Object:
    """Take a meter event. What is wrong with its customer or meter is told later, by an event."""
    event_name, payload = params["event_name"], params["payload"]
    meter = active(account, event_name)
    customer_key, value_key = "stripe_customer_id", "value"
    if meter is not None:
        customer_key = meter["customer_mapping"]["event_payload_key"]
        value_key = meter["value_settings"]["event_payload_key"]
        if meter["status"] != "active":
            raise invalid("The meter of this event is not active.", "event_name", "archived_meter")
    customer = payload.get(customer_key)
    now = account.now(customer)
    identifier = params.get("identifier") or account.new_id("mevt")
    timestamp = params.get("timestamp", now)
    _bounds(event_name, identifier, payload, value_key, timestamp, now)
    _remember(account, identifier)
    kept: Object = {
        "event_name": event_name,
        "identifier": identifier,
        "customer": customer,
        "value": int(payload[value_key]),
        "timestamp": timestamp,
        "received_at": now,
        "received_wall": account.clock.now_s(),
        "visible_at": account.clock.now_s() + lag_s,
        "cancelled": False,
        "problem": _problem(account, meter, customer),
        "key": account.request_key,
    }
    account.meter_events.append(kept)
    if kept["problem"] is not None:
        account.pending_errors.append(
            {"meter": meter["id"] if meter else None, "at": account.clock.now_s()} | kept
        )
    return {
        "object": "billing.meter_event",
        "created": now,
        "event_name": event_name,
        "identifier": identifier,
        "livemode": False,
        "payload": payload,
        "timestamp": timestamp,
    }


def _bounds(
    event_name: str, identifier: str, payload: Object, value_key: str, timestamp: int, now: int
) -> None:
    """The limits that are checked before the answer."""
    for name, text in (("event_name", event_name), ("identifier", identifier)):
        if len(text) > TEXT_MAX:
            raise malformed(f"Invalid {name}: at most 100 characters", name)
    value = payload.get(value_key)
    if value is None:
        raise malformed(
            f"Missing required param: payload[{value_key}].",
            f"payload[{value_key}]",
            "parameter_missing",
        )
    if re.fullmatch(r"-?[0-9]+", value) is None:
        raise malformed(
            f"Invalid value {value}: only whole numbers are accepted.",
            f"payload[{value_key}]",
            "meter_event_invalid_value",
        )
    if len(value.lstrip("-")) > DIGITS_MAX:
        raise malformed(
            "The value has more than 15 digits.",
            f"payload[{value_key}]",
            "meter_event_value_too_many_digits",
        )
    if timestamp < now - PAST_MAX_S:
        raise malformed(
            "The timestamp must be within the past 35 days.",
            "timestamp",
            "timestamp_too_far_in_past",
        )
    if timestamp > now + AHEAD_MAX_S:
        raise malformed(
            "The timestamp must be at most 5 minutes in the future.",
            "timestamp",
            "timestamp_in_future",
        )


def _remember(account: Account, identifier: str) -> None:
    now = account.clock.now_s()
    if account.identifiers.get(identifier, now) > now:
        raise ApiError(400, f"An event already exists with identifier {identifier}.", retry=False)
    account.identifiers[identifier] = now + IDENTIFIER_S


def _problem(account: Account, meter: Object | None, customer: str | None) -> str | None:
    if meter is None:
        return "no_meter"
    if customer is None:
        return "meter_event_no_customer_defined"
    holder = account.objects["customer"].get(customer)
    if holder is None or holder.get("deleted"):
        return "meter_event_customer_not_found"
    return None


def cancel(account: Account, params: Object) -> Object:
    """Cancel one event; source: page "Meter event adjustment": within 24 hours of its receipt."""
    identifier = params.get("cancel", {}).get("identifier")
    if identifier is None:
        raise malformed(
            "Missing required param: cancel[identifier].", "cancel[identifier]", "parameter_missing"
        )
    now = account.clock.now_s()
    for kept in reversed(account.meter_events):
        if kept["identifier"] == identifier and kept["event_name"] == params["event_name"]:
            if now - kept["received_wall"] > CANCEL_S:
                raise invalid("Events can be cancelled within 24 hours.", "cancel[identifier]")
            kept["cancelled"] = True
            return {
                "object": "billing.meter_event_adjustment",
                "cancel": {"identifier": identifier},
                "event_name": params["event_name"],
                "livemode": False,
                "status": "pending",
                "type": "cancel",
            }
    raise ApiError(
        404,
        f"No meter event with identifier {identifier}",
        code="resource_missing",
        param="cancel[identifier]",
    )


def counted(account: Account, event_name: str, customer: str) -> Iterator[Object]:
    """The events of a customer that count by now: aggregated, not cancelled, without a fault."""
    now = account.clock.now_s()
    for kept in account.meter_events:
        if (
            kept["event_name"] == event_name
            and kept["customer"] == customer
            and kept["problem"] is None
            and not kept["cancelled"]
            and kept["visible_at"] <= now
        ):
            yield kept


def aggregate(meter: Object, events: list[Object]) -> int:
    """Sum, count or last; with a time window only the newest event of each window counts."""
    window_s = WINDOWS.get(meter["event_time_window"] or "")
    if window_s is not None:
        newest = {kept["timestamp"] // window_s: kept for kept in events}
        events = list(newest.values())
    formula = meter["default_aggregation"]["formula"]
    if formula == "count":
        return len(events)
    if formula == "last":
        return max(events, key=lambda kept: kept["timestamp"])["value"] if events else 0
    return sum(kept["value"] for kept in events)


def usage(account: Account, meter: Object, customer: str, start: int, end: int) -> int:
    """What an invoice for start ≤ time < end bills; never below 0."""
    events = [
        kept
        for kept in counted(account, meter["event_name"], customer)
        if start <= kept["timestamp"] < end
    ]
    return max(0, aggregate(meter, events))


def summaries(account: Account, params: Object, id: str) -> Object:  # noqa: A002 - the path's own name
    """Sums by window, newest first; windows without events are left out."""
    meter = account.get("billing.meter", id)
    start, end = params["start_time"], params["end_time"]
    account.get("customer", params["customer"], "customer", 400)
    window_s = WINDOWS.get(params.get("value_grouping_window", ""))
    step = window_s or 60
    for name, moment in (("start_time", start), ("end_time", end)):
        if moment % step:
            raise malformed(f"{name} must be aligned with {step} s boundaries", name)
    if end <= start:
        raise malformed("end_time must be after start_time", "end_time")
    windows: dict[int, list[Object]] = defaultdict(list)
    for kept in counted(account, meter["event_name"], params["customer"]):
        if start <= kept["timestamp"] < end:
            windows[(kept["timestamp"] - start) // window_s if window_s else 0].append(kept)
    if window_s is None:
        windows.setdefault(0, [])
    width = window_s or end - start
    rows = (
        {
            "id": f"mtrusg_{id}_{params['customer']}_{start + index * width}_{width}",
            "object": "billing.meter_event_summary",
            "aggregated_value": aggregate(meter, events),
            "start_time": start + index * width,
            "end_time": start + (index + 1) * width,
            "livemode": False,
            "meter": id,
        }
        for index, events in sorted(windows.items(), reverse=True)
    )
    return page(rows, params, f"/v1/billing/meters/{id}/event_summaries")


def report_errors(account: Account) -> None:
    """One thin event for each meter whose events had errors, once they have been gathered."""
    now = account.clock.now_s()
    by_meter: dict[str | None, list[Object]] = defaultdict(list)
    for error in account.pending_errors:
        by_meter[error["meter"]].append(error)
    for meter, errors in by_meter.items():
        if now - errors[0]["at"] < REPORT_S:
            continue
        account.pending_errors = [one for one in account.pending_errors if one not in errors]
        by_code: dict[str, list[Object]] = defaultdict(list)
        for error in errors:
            by_code[error["problem"]].append(error)
        data = {
            "developer_message_summary": f"There are {len(errors)} invalid meter events",
            "reason": {
                "error_count": len(errors),
                "error_types": [
                    {
                        "code": code,
                        "error_count": len(found),
                        "sample_errors": [
                            {
                                "error_message": f"Invalid meter event: {code}",
                                "request": {"identifier": one["key"] or ""},
                            }
                            for one in found[:10]
                        ],
                    }
                    for code, found in by_code.items()
                ],
            },
            "validation_start": iso(errors[0]["at"]),
            "validation_end": iso(errors[-1]["at"] + 1),
        }
        if meter is None:
            account.emit_thin("v1.billing.meter.no_meter_found", data, None)
        else:
            related = {"id": meter, "type": "billing.meter", "url": f"/v1/billing/meters/{meter}"}
            account.emit_thin("v1.billing.meter.error_report_triggered", data, related)
