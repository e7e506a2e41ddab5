"""Usage that is accepted and not billed: why, and how it is billed after all, each row once.

- What only waited for a mapping, a price or capacity is released by `recheck`, in the transaction
  that brought what was missing.
- What a clock or a counter made doubtful waits for a person: `release` or `write_off`, with a
  reason that is kept.

A row is billed when its last hold is closed. Transactions are serialisable, and a row leaves `held`
only once, so two that release the same rows at once bill them once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, func, select

from appliance.controlplane import audit
from appliance.controlplane.billing import tenants
from appliance.controlplane.billing.billing_errors import BadAmount, NothingHeld
from appliance.controlplane.billing.charging import Charged, Charging, Subject
from appliance.controlplane.billing.posting import open_hold, settled_columns
from appliance.controlplane.billing.pricing import ANY, Tokens
from appliance.controlplane.billing.tenants import Mapping
from appliance.controlplane.billing.usage_table import (
    CAPACITY_MISSING,
    HOLDS,
    PRICE_MISSING,
    USAGE,
    HoldState,
    UsageState,
)
from appliance.controlplane.bulk import insert_rows
from appliance.controlplane.bulk_update import update_rows
from appliance.manifests.codes import Code

AUTOMATIC: Final = frozenset({Code.TENANT_UNMAPPED.value, PRICE_MISSING, CAPACITY_MISSING})
KEY: Final = ("appliance_id", "epoch", "seq", "part")
_SYSTEM: Final = "system"

Place = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which held usage is meant; None is any."""

    appliance_id: str | None = None
    tenant_id: str | None = None
    code: str | None = None
    epoch: int | None = None
    seq: int | None = None

    def where(self) -> list[ColumnElement[bool]]:
        wanted = [
            (USAGE.c.appliance_id, self.appliance_id),
            (USAGE.c.tenant_id, None if self.tenant_id == ANY else self.tenant_id),
            (USAGE.c.epoch, self.epoch),
            (USAGE.c.seq, self.seq),
            (HOLDS.c.code, self.code),
        ]
        return [column == value for column, value in wanted if value is not None]


@dataclass(frozen=True, slots=True)
class HeldSum:
    """Held usage of one tenant for one reason. A row held for two reasons is in two sums."""

    appliance_id: str
    tenant_id: str
    tenant: str
    code: str
    manifests: int
    from_hour_s: int
    until_hour_s: int  # the last hour
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Released:
    """What a decision came to, in rows of usage."""

    billed: int
    written_off: int
    still_held: int


def list_holds(connection: Connection, selection: Selection) -> list[HeldSum]:
    manifest = USAGE.c.epoch * 2**32 + USAGE.c.seq
    query = (
        select(
            USAGE.c.appliance_id,
            USAGE.c.tenant_id,
            HOLDS.c.code,
            func.count(manifest.distinct()),
            func.min(USAGE.c.hour_s),
            func.max(USAGE.c.hour_s),
            func.sum(USAGE.c.requests),
            func.sum(USAGE.c.input_tokens),
            func.sum(USAGE.c.cached_tokens),
            func.sum(USAGE.c.output_tokens),
        )
        .select_from(_held())
        .where(HOLDS.c.state == HoldState.OPEN.value, *selection.where())
        .group_by(USAGE.c.appliance_id, USAGE.c.tenant_id, HOLDS.c.code)
        .order_by(USAGE.c.appliance_id, USAGE.c.tenant_id, HOLDS.c.code)
    )
    names: dict[str, dict[str, str]] = {}
    found = []
    for site, tenant_id, code, *numbers in connection.execute(query):
        if site not in names:
            names[site] = tenants.seen(connection, site)
        name = names[site].get(tenant_id, "")
        found.append(HeldSum(site, tenant_id, name, code, *(int(number) for number in numbers)))
    return found


def recheck(connection: Connection, now_ns: int, selection: Selection | None = None) -> Released:
    """Bill what was held for want of a mapping, a price or capacity that is there now."""
    rows, codes = _open(connection, selection or Selection())
    outcome = _Outcome(connection, now_ns, _SYSTEM, "what was missing is there")
    for place, row in rows.items():
        outcome.settle(row, codes[place])
    return outcome.save()


def release(
    connection: Connection, selection: Selection, *, by: str, reason: str, now_ns: int
) -> Released:
    """A person lets usage be billed. What is missing for it still holds it.

    Raises NothingHeld, BadAmount without a reason.
    """
    return _decide(
        connection,
        selection,
        by,
        reason,
        now_ns,
        "release",
        lambda outcome, row, codes: outcome.settle(
            row, codes, {code for code in codes if selection.code in {None, code}} - AUTOMATIC
        ),
    )


def write_off(
    connection: Connection, selection: Selection, *, by: str, reason: str, now_ns: int
) -> Released:
    """A person decides that usage is never billed. Raises NothingHeld, BadAmount."""
    return _decide(
        connection,
        selection,
        by,
        reason,
        now_ns,
        "write_off",
        lambda outcome, row, codes: outcome.write_off(row, codes),
    )


def _decide(
    connection: Connection,
    selection: Selection,
    by: str,
    reason: str,
    now_ns: int,
    action: str,
    act: "Callable[[_Outcome, Row[Any], set[str]], None]",
) -> Released:
    if not reason.strip():
        raise BadAmount("A decision needs a reason.", next_step="Give it with --reason.")
    rows, codes = _open(connection, selection)
    if not rows:
        raise NothingHeld(
            "Nothing that fits is held.", next_step="See `cic control-plane holds list`."
        )
    outcome = _Outcome(connection, now_ns, by, reason)
    for place, row in rows.items():
        act(outcome, row, codes[place])
    result = outcome.save()
    audit.record(
        connection,
        now_ns,
        actor=by,
        action=action,
        kind="hold",
        object_id=selection.appliance_id or "",
        name=selection.tenant_id or "",
        before=f"{selection}",
        after=f"billed {result.billed}, written off {result.written_off}, "
        f"still held {result.still_held}: {reason}",
    )
    return result


class _Outcome:
    """Gathers what becomes of held rows, and writes it."""

    def __init__(self, connection: Connection, now_ns: int, by: str, reason: str) -> None:
        self._connection = connection
        self._now_ns = now_ns
        self._decided = {"decided_at_ns": now_ns, "decided_by": by, "reason": reason}
        self._charging = Charging(connection, now_ns)
        self._mappings: dict[str, Mapping] = {}
        self._rows: list[dict[str, Any]] = []
        self._closed: dict[HoldState, list[dict[str, Any]]] = defaultdict(list)
        self._opened: list[dict[str, Any]] = []
        self._counts = {UsageState.BILLED: 0, UsageState.WRITTEN_OFF: 0, UsageState.HELD: 0}

    def settle(self, row: Row[Any], codes: set[str], released: Iterable[str] = ()) -> None:
        """Close what no longer holds the row; bill it when nothing does."""
        manual = codes - AUTOMATIC - set(released)
        site = row.appliance_id
        if site not in self._mappings:
            self._mappings[site] = tenants.mapping_of(self._connection, site)
        party = self._mappings[site].at(row.tenant_id, row.hour_s)
        charged = None
        still = set(manual)
        if party is None:
            still.add(Code.TENANT_UNMAPPED.value)
        elif not manual:
            subject = Subject(row.model, row.region, row.price_class, row.hour_s)
            used = Tokens(row.input_tokens, row.cached_tokens, row.output_tokens)
            source = f"{site}/{row.epoch}/{row.seq}~{row.part}"
            outcome = self._charging.charge(party, subject, used, source)
            if isinstance(outcome, Charged):
                charged = outcome
            else:
                still.add(outcome)
        else:
            still |= codes & {PRICE_MISSING, CAPACITY_MISSING}
        place = {name: getattr(row, name) for name in KEY}
        self._close(place, codes - still, HoldState.RELEASED)
        self._opened += [open_hold(place, code, self._now_ns) for code in sorted(still - codes)]
        self._counts[UsageState.BILLED if charged else UsageState.HELD] += 1
        payer = {
            "customer_id": party.customer_id if party else "",
            "plan": party.plan if party else "",
        }
        self._rows.append({**place, **payer, **settled_columns(charged, self._now_ns)})

    def write_off(self, row: Row[Any], codes: set[str]) -> None:
        place = {name: getattr(row, name) for name in KEY}
        self._close(place, codes, HoldState.WRITTEN_OFF)
        self._counts[UsageState.WRITTEN_OFF] += 1
        state = {"state": UsageState.WRITTEN_OFF.value, "settled_at_ns": self._now_ns}
        payer = {"customer_id": row.customer_id, "plan": row.plan}
        self._rows.append({**place, **payer, **settled_columns(None, self._now_ns), **state})

    def save(self) -> Released:
        update_rows(self._connection, USAGE, KEY, self._rows)
        for state, closed in self._closed.items():
            update_rows(
                self._connection,
                HOLDS,
                (*KEY, "code"),
                [{**hold, "state": state.value, **self._decided} for hold in closed],
            )
        # A hold that was closed before and is needed again is opened again, not doubled.
        known = _closed_before(self._connection, self._opened)
        again = [hold for hold in self._opened if _hold_key(hold) in known]
        update_rows(self._connection, HOLDS, (*KEY, "code"), again)
        new = [hold for hold in self._opened if _hold_key(hold) not in known]
        insert_rows(self._connection, HOLDS, new)
        self._charging.save()
        return Released(
            self._counts[UsageState.BILLED],
            self._counts[UsageState.WRITTEN_OFF],
            self._counts[UsageState.HELD],
        )

    def _close(self, place: dict[str, Any], codes: Iterable[str], state: HoldState) -> None:
        self._closed[state] += [{**place, "code": code} for code in sorted(codes)]


def _open(
    connection: Connection, selection: Selection
) -> tuple[dict[Place, Row[Any]], dict[Place, set[str]]]:
    """The held rows that are meant, in the order of their manifests, with all their open holds."""
    query = (
        select(USAGE, HOLDS.c.code)
        .select_from(_held())
        .where(HOLDS.c.state == HoldState.OPEN.value, *replace(selection, code=None).where())
        .order_by(*(USAGE.c[name] for name in KEY))
    )
    rows: dict[Place, Row[Any]] = {}
    codes: dict[Place, set[str]] = defaultdict(set)
    for row in connection.execute(query):
        place = (row.appliance_id, row.epoch, row.seq, row.part)
        rows[place] = row
        codes[place].add(row.code)
    meant = [place for place in rows if selection.code is None or selection.code in codes[place]]
    return {place: rows[place] for place in meant}, codes


def _held() -> Any:
    same = and_(*(USAGE.c[name] == HOLDS.c[name] for name in KEY))
    return USAGE.join(HOLDS, and_(same, USAGE.c.state == UsageState.HELD.value))


def _closed_before(connection: Connection, opened: list[dict[str, Any]]) -> set[tuple[object, ...]]:
    """Which of these holds are there already, closed."""
    if not opened:
        return set()
    columns = [HOLDS.c[name] for name in (*KEY, "code")]
    query = select(*columns).where(
        HOLDS.c.code.in_(sorted({hold["code"] for hold in opened})),
        HOLDS.c.appliance_id.in_(sorted({hold["appliance_id"] for hold in opened})),
        HOLDS.c.state != HoldState.OPEN.value,
    )
    closed = {tuple(row) for row in connection.execute(query)}
    return closed & {_hold_key(hold) for hold in opened}


def _hold_key(hold: dict[str, Any]) -> tuple[object, ...]:
    return tuple(hold[name] for name in (*KEY, "code"))
