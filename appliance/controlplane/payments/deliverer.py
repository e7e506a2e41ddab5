"""Delivery of the outbox to Stripe: what `delivery` decides, done and written down.

Per lane (customer × meter), under its lease:

1. read what waits, find its way in Stripe, and decide by hour;
2. what is late is planned as invoice items (`late`), in one transaction;
3. a batch becomes `sending`, each row with the idempotency key of this attempt, and is committed;
4. the batch is sent, one call after the other; what came of each is committed;
5. rows in doubt for too long are looked up in Stripe's sums.

Killed between 3 and 4, a batch is sent again with the same identifiers: Stripe takes each once.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from appliance.controlplane.database import Database
from appliance.controlplane.payments import late, sending
from appliance.controlplane.payments.delivery import (
    Fate,
    HourFate,
    PeriodState,
    back_off_s,
    hour_fate,
)
from appliance.controlplane.payments.invoices import Invoices
from appliance.controlplane.payments.lanes import Lane, lease, release
from appliance.controlplane.payments.lookup import Lookup
from appliance.controlplane.payments.pace import Pace
from appliance.controlplane.payments.provisioning import Provisioner, Route
from appliance.controlplane.payments.sending import ARRIVED, Attempt, Batch, Outcome, Sending
from appliance.controlplane.payments.stripe_errors import (
    StripeDenied,
    StripeDuplicate,
    StripeError,
    StripeRefused,
    StripeUnavailable,
)
from appliance.controlplane.payments.stripe_names import Tariff, month_of
from appliance.controlplane.payments.stripe_objects import StripeApi
from appliance.controlplane.payments.tariffs import open_hours
from appliance.domain.clock import Clock

_log = logging.getLogger(__name__)

LOOK_UPS: Final = 20  # hours, in one pass over a lane
BATCH: Final = 12  # rows that are in flight, or in doubt, together
LEASE_S: Final = 120
ROUND_S: Final = 60
CALL_S: Final = 30  # no call is begun with less of the lease left
LOOK_AGAIN_S: Final = 60  # for a lane that waits for time to pass
DENIED_S: Final = 300  # for a key that Stripe does not take
SECOND_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Round:
    """What one pass over the lanes came to."""

    lanes: int = 0
    accepted: int = 0
    refused: int = 0
    planned_late: int = 0
    failures: int = 0
    waiting: int = 0
    denied: bool = False

    def plus(self, other: "Round") -> "Round":
        return Round(
            self.lanes + other.lanes,
            self.accepted + other.accepted,
            self.refused + other.refused,
            self.planned_late + other.planned_late,
            self.failures + other.failures,
            self.waiting + other.waiting,
            self.denied or other.denied,
        )


@dataclass(frozen=True, slots=True)
class _Ends:
    """When the lease of a lane is nearly over, by both clocks.

    While a machine is suspended its monotonic clock may stand still; its leases, and what Stripe
    remembers of identifiers, run out all the same.
    """

    monotonic_s: float
    wall_ns: int


class Deliverer:
    """Delivers meter events. Several may run on one database, in one program or in many.

    `parallel` lanes at once; `late_quiet_s` lets late usage that is still coming in gather into
    one invoice item per month.
    """

    def __init__(
        self,
        database: Database,
        api: StripeApi,
        provisioner: Provisioner,
        invoices: Invoices,
        clock: Clock,
        entropy: Callable[[int], bytes],
        pace: Pace,
        *,
        currency: str,
        parallel: int = 16,
        late_quiet_s: int = 120,
    ) -> None:
        self._database = database
        self._api = api
        self._provisioner = provisioner
        self._invoices = invoices
        self._lookup = Lookup(database, api, clock)
        self._clock = clock
        self._entropy = entropy
        self._pace = pace
        self._currency = currency
        self._parallel = parallel
        self._late_quiet_s = late_quiet_s

    async def round(self) -> Round:
        """Pass over the lanes that are due, some at a time, until none is or `ROUND_S` is over."""
        ends_s = self._clock.monotonic_s() + ROUND_S
        holder = self._entropy(8).hex()
        total = Round()
        async with asyncio.TaskGroup() as tasks:
            runs = [
                tasks.create_task(self._passes(lane, holder, ends_s))
                for lane in await self._lease(holder, self._parallel)
            ]
        for run in runs:
            total = total.plus(run.result())
        return total

    async def _passes(self, lane: Lane, holder: str, ends_s: float) -> Round:
        """This lane, and then one after the other: a slow one keeps no other waiting."""
        total, lanes = Round(), [lane]
        while lanes:
            total = total.plus(await self._pass(lanes[0], holder)).plus(Round(lanes=1))
            if total.denied or self._clock.monotonic_s() >= ends_s:
                break
            lanes = await self._lease(holder, 1)
        return total

    async def _lease(self, holder: str, limit: int) -> list[Lane]:
        now_ns = self._clock.wall_ns()
        until_ns = now_ns + LEASE_S * SECOND_NS
        return await self._database.arun(
            lambda connection: lease(connection, holder, now_ns, until_ns, limit)
        )

    async def _pass(self, lane: Lane, holder: str) -> Round:
        """One lane until it is empty, has to wait, fails, or its lease is nearly over."""
        failures, wait_s, note = 0, 0, ""
        done, stopped = await self._lane(lane, holder)
        if isinstance(stopped, StripeDenied):
            done, wait_s, note = replace(done, denied=True), DENIED_S, stopped.message
        elif stopped is not None:
            failures = lane.failures + 1
            jitter = int.from_bytes(self._entropy(4), "big")
            wait_s, note = back_off_s(failures, jitter), stopped.message
            done = replace(done, failures=1)
        elif done.waiting or not (done.accepted or done.refused or done.planned_late):
            wait_s, note = LOOK_AGAIN_S, "waiting for time to pass"
        next_try_ns = self._clock.wall_ns() + wait_s * SECOND_NS
        await self._database.arun(
            lambda connection: release(
                connection, lane, holder, next_try_ns=next_try_ns, failures=failures, note=note
            )
        )
        if failures or done.denied:
            _log.warning(
                "a lane waits",
                extra={"customer_id": lane.customer_id, "meter": lane.meter, "reason": note},
            )
        return done

    async def _lane(self, lane: Lane, holder: str) -> tuple[Round, StripeError | None]:
        """What was done, and the error that stopped it."""
        now_ns = self._clock.wall_ns()
        ends = _Ends(
            self._clock.monotonic_s() + LEASE_S - CALL_S, now_ns + (LEASE_S - CALL_S) * SECOND_NS
        )
        done, batch = Round(), Batch()
        try:
            routes, fates = await self._ways(lane, now_ns)
            done = replace(done, planned_late=await self._plan_late(lane, fates, now_ns))
            while self._in_time(ends):
                batch = await self._claim(lane, holder, routes, fates)
                if not batch.events:
                    break
                sent, stopped = await self._send(batch, ends)
                done = done.plus(sent)
                if stopped is not None:
                    return done, stopped
            for tariff, hour_s in batch.look_up[:LOOK_UPS]:
                if self._in_time(ends):
                    await self._lookup.decide(lane, routes[tariff], hour_s)
        except StripeError as error:
            return done, error
        return replace(done, waiting=batch.waiting), None

    async def _claim(
        self,
        lane: Lane,
        holder: str,
        routes: dict[Tariff, Route],
        fates: dict[tuple[Tariff, int], HourFate],
    ) -> Batch:
        now_ns = self._clock.wall_ns()
        return await self._database.arun(
            lambda connection: sending.claim(
                connection, lane, holder, routes, fates, now_ns, self._entropy, BATCH
            )
        )

    async def _ways(
        self, lane: Lane, now_ns: int
    ) -> tuple[dict[Tariff, Route], dict[tuple[Tariff, int], HourFate]]:
        """Where what waits goes in Stripe, and what becomes of each of its hours."""
        await self._database.arun(
            lambda connection: sending.split_large(connection, lane.customer_id, lane.meter)
        )
        hours = await self._database.aread(
            lambda connection: open_hours(
                connection, sending.open_in(lane.customer_id, lane.meter), self._currency
            )
        )
        now_s = now_ns // SECOND_NS
        routes: dict[Tariff, Route] = {}
        fates: dict[tuple[Tariff, int], HourFate] = {}
        for tariff, some in hours.items():
            route = routes[tariff] = await self._provisioner.route(lane.customer_id, tariff)
            states: dict[int, PeriodState] = {}
            for hour_s in some:
                fate = hour_fate(hour_s, route.covered_from_s, PeriodState.OPEN, now_s)
                if fate.fate is not Fate.LATE:  # else it is, whatever becomes of its invoice
                    month_s, _ = month_of(hour_s)
                    if month_s not in states:
                        states[month_s] = await self._invoices.period(
                            route.stripe_customer, route.subscription, hour_s
                        )
                    fate = hour_fate(hour_s, route.covered_from_s, states[month_s], now_s)
                fates[tariff, hour_s] = fate
        return routes, fates

    async def _plan_late(
        self, lane: Lane, fates: dict[tuple[Tariff, int], HourFate], now_ns: int
    ) -> int:
        overdue = {hour: fate for hour, fate in fates.items() if fate.fate is Fate.LATE}
        if not overdue:
            return 0
        return await self._database.arun(
            lambda connection: late.plan(
                connection,
                lane.customer_id,
                overdue,
                now_ns,
                self._entropy,
                quiet_s=self._late_quiet_s,
            )
        )

    async def _send(self, batch: Batch, ends: _Ends) -> tuple[Round, StripeError | None]:
        """One call after the other. What came of those that were made is kept in any case."""
        attempts: list[Attempt] = []
        stopped: StripeError | None = None
        for one in batch.events:
            if stopped is None:
                await self._pace.turn()
            if stopped is not None or not self._in_time(ends):
                attempts.append(Attempt(one, Outcome.NOT_MADE))
                continue
            attempt, stopped = await self._call(one)
            attempts.append(attempt)
        now_ns = self._clock.wall_ns()
        await self._database.arun(lambda connection: sending.finish(connection, attempts, now_ns))
        return Round(
            accepted=sum(attempt.outcome in ARRIVED for attempt in attempts),
            refused=sum(attempt.outcome is Outcome.REFUSED for attempt in attempts),
        ), stopped

    def _in_time(self, ends: _Ends) -> bool:
        """Looked at right before each call: what was decided is not done a day later."""
        return self._clock.monotonic_s() < ends.monotonic_s and self._clock.wall_ns() < ends.wall_ns

    async def _call(self, one: Sending) -> tuple[Attempt, StripeError | None]:
        """What came of one call; the error if no other may follow it now."""
        try:
            await self._api.send_meter_event(one.event, one.key)
        except StripeDuplicate:
            return Attempt(one, Outcome.DUPLICATE), None
        except StripeRefused as error:
            _log.warning(
                "a meter event was refused",
                extra={"row_id": one.row_id, "reason": error.message},
            )
            return Attempt(one, Outcome.REFUSED, error.message), None
        except StripeDenied as error:
            return Attempt(one, Outcome.TURNED_AWAY, error.message), error
        except StripeUnavailable as error:
            outcome = Outcome.TURNED_AWAY if error.limited else Outcome.UNANSWERED
            return Attempt(one, outcome, error.message), error
        return Attempt(one, Outcome.ACCEPTED), None
