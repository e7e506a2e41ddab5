"""Accepted manifests become rows of usage, held or billed, in the transaction that stores them."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from sqlalchemy import Connection

from appliance.controlplane.accepted import AcceptedManifest
from appliance.controlplane.billing import tenants
from appliance.controlplane.billing.charging import NOTHING, Charged, Charging, Subject
from appliance.controlplane.billing.pricing import Tokens
from appliance.controlplane.billing.tenants import Mapping
from appliance.controlplane.billing.usage_table import HOLDS, USAGE, HoldState, UsageState
from appliance.controlplane.bulk import insert_rows
from appliance.manifests.codes import Code
from appliance.manifests.documents import Line

ROWS_AT_ONCE: Final = 5_000  # rows of usage that are gathered before they are written


class UsageKey(NamedTuple):
    """What lines are added up by; its order is the order of a manifest's rows of usage."""

    hour: str
    tenant_id: str
    model: str
    region: str
    price_class: str


class UsedLine(Protocol):
    """What of a line its usage is read from."""

    @property
    def hour(self) -> str: ...
    @property
    def tenant_id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def price_class(self) -> str: ...
    @property
    def requests(self) -> str: ...
    @property
    def input_tokens(self) -> str: ...
    @property
    def cached_tokens(self) -> str: ...
    @property
    def output_tokens(self) -> str: ...


class Used(NamedTuple):
    requests: int
    tokens: Tokens


class Posting:
    """For one transaction: add manifests, then `save` before its commit."""

    def __init__(self, connection: Connection, now_ns: int) -> None:
        self._connection = connection
        self._now_ns = now_ns
        self._charging = Charging(connection, now_ns)
        self._mappings: dict[str, Mapping] = {}
        self._seen: dict[str, dict[str, str]] = {}
        self._hours: dict[str, int] = {}
        self._usage: list[dict[str, Any]] = []
        self._holds: list[dict[str, Any]] = []

    def add(self, accepted: AcceptedManifest) -> tuple[Code, ...]:
        """Post one manifest; the codes that billing adds to its own."""
        site = accepted.appliance_id
        if site not in self._mappings:
            self._mappings[site] = tenants.mapping_of(self._connection, site)
        self._note_tenants(site, accepted.lines)
        mapping = self._mappings[site]
        source = f"{site}/{accepted.epoch}/{accepted.seq}"
        unmapped = False
        for part, (key, used) in enumerate(gather(accepted.lines)):
            hour_s = self._hours.get(key.hour)
            if hour_s is None:
                hour_s = self._hours[key.hour] = hour_s_of(key.hour)
            codes = [code.value for code in accepted.holds]
            party = mapping.at(key.tenant_id, hour_s)
            charged: Charged | None = None
            if party is None:
                codes.append(Code.TENANT_UNMAPPED.value)
                unmapped = True
            elif not codes:
                subject = Subject(key.model, key.region, key.price_class, hour_s)
                outcome = self._charging.charge(party, subject, used.tokens, source)
                if isinstance(outcome, Charged):
                    charged = outcome
                else:
                    codes.append(outcome)
            place = {
                "appliance_id": site,
                "epoch": accepted.epoch,
                "seq": accepted.seq,
                "part": part,
            }
            self._usage.append(
                {
                    **place,
                    **_used_columns(key, used, hour_s),
                    **settled_columns(charged, self._now_ns),
                    "customer_id": party.customer_id if party else "",
                    "plan": party.plan if party else "",
                    "posted_at_ns": self._now_ns,
                }
            )
            self._holds += [open_hold(place, code, self._now_ns) for code in codes]
        if len(self._usage) >= ROWS_AT_ONCE:
            self.save()
        return (Code.TENANT_UNMAPPED,) if unmapped else ()

    def save(self) -> None:
        """Write what was added since the last time."""
        insert_rows(self._connection, USAGE, self._usage)
        insert_rows(self._connection, HOLDS, self._holds)
        self._charging.save()
        self._usage.clear()
        self._holds.clear()

    def _note_tenants(self, site: str, lines: Sequence[Line]) -> None:
        if site not in self._seen:
            self._seen[site] = tenants.seen(self._connection, site)
        before = self._seen[site]
        now = {line.tenant_id: line.tenant for line in lines}
        if any(before.get(tenant_id) != name for tenant_id, name in now.items()):
            tenants.note_seen(self._connection, site, before, now, self._now_ns)
            before.update(now)


def post_manifest(
    connection: Connection, accepted: AcceptedManifest, now_ns: int
) -> tuple[Code, ...]:
    """Post one manifest; `Posting` is faster where a transaction has many."""
    posting = Posting(connection, now_ns)
    codes = posting.add(accepted)
    posting.save()
    return codes


def gather(lines: Iterable[UsedLine]) -> list[tuple[UsageKey, Used]]:
    """The lines added up over environments, keys and digests, in the order of their keys.

    Cached tokens are a part of the lines' input and are taken out of it here. What nothing was
    used of still makes a row: its requests are counted.
    """
    sums: dict[UsageKey, list[int]] = {}
    for line in lines:
        key = UsageKey(line.hour, line.tenant_id, line.model, line.region, line.price_class)
        total = sums.get(key)
        if total is None:
            total = sums[key] = [0, 0, 0, 0]
        cached = int(line.cached_tokens)
        total[0] += int(line.requests)
        total[1] += int(line.input_tokens) - cached
        total[2] += cached
        total[3] += int(line.output_tokens)
    return [(key, Used(sums[key][0], Tokens(*sums[key][1:]))) for key in sorted(sums)]


def hour_s_of(hour: str) -> int:
    """`2026-11-22T19:00:00Z` to seconds since 1970."""
    return int(datetime.fromisoformat(hour).timestamp())


def open_hold(place: dict[str, Any], code: str, now_ns: int) -> dict[str, Any]:
    return {
        **place,
        "code": code,
        "state": HoldState.OPEN.value,
        "opened_at_ns": now_ns,
        "decided_at_ns": None,
        "decided_by": "",
        "reason": "",
    }


def settled_columns(charged: Charged | None, now_ns: int) -> dict[str, Any]:
    """The columns of usage that say what became of it; None: it is held."""
    free = charged.free if charged else NOTHING
    reserved = charged.reserved if charged else NOTHING
    return {
        "state": (UsageState.BILLED if charged else UsageState.HELD).value,
        "free_input": free.input,
        "free_cached": free.cached,
        "free_output": free.output,
        "reserved_input": reserved.input,
        "reserved_cached": reserved.cached,
        "reserved_output": reserved.output,
        "settled_at_ns": now_ns if charged else None,
    }


def _used_columns(key: UsageKey, used: Used, hour_s: int) -> dict[str, Any]:
    return {
        "tenant_id": key.tenant_id,
        "model": key.model,
        "region": key.region,
        "price_class": key.price_class,
        "hour_s": hour_s,
        "requests": used.requests,
        "input_tokens": used.tokens.input,
        "cached_tokens": used.tokens.cached,
        "output_tokens": used.tokens.output,
    }
