"""Which replica serves a request, and when. Events in, effects out; no clock, no input or output.

The shell (the gateway) calls one method for each event, with the time, and applies what comes
back: sends a started ticket's request, answers a shed one. Times are seconds of one monotonic
clock. Every ticket that arrives ends exactly once: by `finish`, by `cancel`, or by being shed.
"""

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Final

from appliance.domain.ids import DeploymentId, EnvironmentId, TenantId
from appliance.scheduler.deployment import Deployment
from appliance.scheduler.lanes import LATE_S, LaneSpec
from appliance.scheduler.placement import any_left, choose
from appliance.scheduler.replicas import ReplicaTarget
from appliance.scheduler.standing import Standing
from appliance.scheduler.tickets import (
    UNKNOWN_LOADING,
    Admission,
    DeploymentView,
    Effect,
    Effects,
    Loading,
    Outcome,
    Placed,
    Queued,
    Shed,
    ShedLate,
    ShedReason,
    Start,
    Ticket,
    TicketState,
)
from appliance.settings import Scheduling

RETRY_AFTER_S_MIN: Final = 1
RETRY_AFTER_S_MAX: Final = 60
# Where nobody knows how long a model loads. Small ones take seconds, large ones minutes: ask again
# soon, it is cheap.
_MODEL_LOADING_RETRY_S: Final = 5
_MODEL_LOADING_RETRY_S_MAX: Final = 3_600
_UNAVAILABLE_RETRY_S: Final = 10

_NOTHING: Final[Effects] = ()


class Scheduler:
    """Places tickets on replicas, queues them fairly, sheds what cannot be served in time."""

    __slots__ = ("_deployments", "_settings", "_turn")

    def __init__(self, settings: Scheduling) -> None:
        self._settings = settings
        self._deployments: dict[DeploymentId, Deployment] = {}
        self._turn = 0

    def set_replicas(
        self,
        deployment_id: DeploymentId,
        targets: Sequence[ReplicaTarget],
        now_s: float,
        starting: int = 0,
        loading: Loading = UNKNOWN_LOADING,
    ) -> Effects:
        """Make `targets` the ready replicas; `starting` more are on their way, or come when asked.

        `loading` is what a client is told that comes before the first of them.

        Replicas that stay keep their statistics; one that answers elsewhere now is a restarted
        engine and is trusted anew. Those that vanish take no new tickets and are forgotten when
        their last ticket has ended. No targets and none starting: the deployment is forgotten when
        nothing runs on it or waits for it any more.
        """
        deployment = self._deployments.get(deployment_id)
        if deployment is None:
            deployment = self._deployments[deployment_id] = Deployment()
        deployment.starting = starting
        deployment.loading = loading
        for standing in deployment.ready:
            standing.ready = False
        deployment.ready = [self._standing(deployment, target, now_s) for target in targets]
        for replica_id in [r for r, s in deployment.known.items() if not s.ready and not s.running]:
            del deployment.known[replica_id]
        self._assume_speed(deployment_id)
        effects = self._dispatch(deployment, now_s)
        self._forget_if_gone(deployment_id, deployment)
        return effects

    def set_lanes(
        self, deployment_id: DeploymentId, specs: Iterable[LaneSpec], now_s: float
    ) -> Effects:
        """Make these the reservations that are in force; of an unknown deployment there are none.

        Who waits already goes on by the way it came.
        """
        deployment = self._deployments.get(deployment_id)
        if deployment is None:
            return _NOTHING
        deployment.lanes.set(specs, now_s)
        return self._dispatch(deployment, now_s)

    def promised(
        self,
        deployment_id: DeploymentId,
        tenant_id: TenantId,
        environment_id: EnvironmentId,
        now_s: float,
    ) -> bool:
        """Whether one more request of theirs is within a reservation."""
        deployment = self._deployments.get(deployment_id)
        if deployment is None or not deployment.lanes:
            return False
        lane = deployment.lanes.of(tenant_id, environment_id, now_s)
        return lane is not None and lane.promises(now_s)

    def arrive(self, ticket: Ticket, now_s: float) -> Admission:
        """A new request. Tickets that already wait are never overtaken by it, but by a lane."""
        deployment = self._deployments.get(ticket.deployment_id)
        if deployment is not None:
            deployment.asked_at_s = now_s
            if deployment.lanes:
                ticket.lane = deployment.lanes.of(ticket.tenant_id, ticket.environment_id, now_s)
        if deployment is None or not deployment.ready:
            shed = self._shed_without_replica(deployment, now_s)
            return self._turned_away(ticket, shed)
        if not deployment.fair.waiting:
            standing = choose(deployment.ready, ticket.tokens, (), now_s)
            if standing is not None:
                return Placed(self._place(ticket, standing, now_s))
        lane = ticket.lane
        full = deployment.waiting >= self._settings.queue_length_max
        if full and (lane is None or not lane.promises(now_s)):
            retry_s = self._drain_retry_s(deployment, now_s)
            return self._turned_away(ticket, Shed(ShedReason.OVERLOADED, retry_s))
        ticket.state = TicketState.WAITING
        deployment.fair.push(ticket, now_s)
        if lane is not None:
            lane.wait(ticket)
        return Queued(deployment.waiting)

    def first_byte(self, ticket: Ticket, now_s: float) -> Effects:
        """The replica has begun to answer: one on trial may take more than one request again."""
        standing = ticket.place
        if standing is None or not standing.probing or not standing.answered(ticket.started_at_s):
            return _NOTHING
        deployment = self._deployments.get(ticket.deployment_id)
        return _NOTHING if deployment is None else self._dispatch(deployment, now_s)

    def finish(self, ticket: Ticket, outcome: Outcome, output_tokens: int, now_s: float) -> Effects:
        """The ticket ended on its replica, for good. A ticket that is done stays as it is."""
        if ticket.state is not TicketState.RUNNING:
            return self.cancel(ticket, now_s)
        ticket.state = TicketState.DONE
        return self._leave(ticket, outcome, output_tokens, now_s)

    def retry(
        self, ticket: Ticket, now_s: float, outcome: Outcome = Outcome.ENGINE_FAILED
    ) -> tuple[Admission, Effects]:
        """The replica failed before its first byte: try another. Called instead of `finish`.

        An `outcome` of REFUSED_BY_ENGINE: it answered, only not with a success; that is no step
        towards its ejection.

        Never a replica it was on before, and no more than `tries` in all; then the answer is
        Shed(TRIES_EXHAUSTED) and the ticket is done. If all others are full it waits at the head of
        the queue. The effects concern other tickets.
        """
        if ticket.state is not TicketState.RUNNING:
            return Shed(ShedReason.TRIES_EXHAUSTED, RETRY_AFTER_S_MIN), _NOTHING
        self._end(ticket, outcome, 0, now_s)
        deployment = self._deployments.get(ticket.deployment_id)
        if deployment is None:
            ticket.state = TicketState.DONE
            return Shed(ShedReason.TRIES_EXHAUSTED, RETRY_AFTER_S_MIN), _NOTHING
        ready, tried = deployment.ready, ticket.tried
        answer: Admission
        if len(tried) >= self._settings.tries or not any_left(ready, tried):
            retry_s = self._drain_retry_s(deployment, now_s)
            answer = self._turned_away(ticket, Shed(ShedReason.TRIES_EXHAUSTED, retry_s))
        elif (standing := choose(ready, ticket.tokens, tried, now_s)) is not None:
            answer = Placed(self._place(ticket, standing, now_s))
        else:
            ticket.state = TicketState.WAITING
            ticket.queued_at_s = now_s
            deployment.again[ticket] = None
            answer = Queued(len(deployment.again))
        return answer, self._dispatch(deployment, now_s)

    def cancel(self, ticket: Ticket, now_s: float) -> Effects:
        """The client left: the ticket leaves the queue or its replica."""
        if ticket.state is TicketState.RUNNING:
            ticket.state = TicketState.DONE
            return self._leave(ticket, Outcome.CLIENT_LEFT, 0, now_s)
        if ticket.state is TicketState.WAITING:
            deployment = self._deployments[ticket.deployment_id]
            self._unqueue(deployment, ticket)
            self._forget_if_gone(ticket.deployment_id, deployment)
            if ticket.lane is not None and ticket.queued_at_s <= now_s - LATE_S:
                ticket.lane.refuse(ticket)  # it left because its turn did not come in time
        ticket.state = TicketState.DONE
        return _NOTHING

    def tick(self, now_s: float) -> Effects:
        """Time has passed: ejections end, tickets wait too long. Call it a few times a second."""
        effects: list[Effect] = []
        for deployment_id, deployment in list(self._deployments.items()):
            if not deployment.waiting:
                continue
            effects.extend(self._dispatch(deployment, now_s))
            self._time_out(deployment, now_s, effects)
            self._forget_if_gone(deployment_id, deployment)
        return effects

    def view(self, now_s: float) -> tuple[DeploymentView, ...]:
        """Everything, for status and metrics."""
        return tuple(known.view(each, now_s) for each, known in self._deployments.items())

    def view_of(self, deployment_id: DeploymentId, now_s: float) -> DeploymentView | None:
        """One of them; None: it is not known here."""
        deployment = self._deployments.get(deployment_id)
        return None if deployment is None else deployment.view(deployment_id, now_s)

    # Everything below changes one deployment.

    def _turned_away(self, ticket: Ticket, shed: Shed) -> Shed:
        ticket.state = TicketState.DONE
        if ticket.lane is not None:
            ticket.lane.refuse(ticket)
        return shed

    def _standing(self, deployment: Deployment, target: ReplicaTarget, now_s: float) -> Standing:
        settings = self._settings
        standing = deployment.known.get(target.replica_id)
        if standing is None:
            standing = Standing(target, settings.requests_per_replica_max, settings.eject_s)
            deployment.known[target.replica_id] = standing
            return standing
        if (standing.target.host, standing.target.port) != (target.host, target.port):
            standing.trust(now_s, settings.eject_s)
        standing.ready = True
        standing.aim(target, settings.requests_per_replica_max)
        return standing

    def _place(self, ticket: Ticket, standing: Standing, now_s: float) -> ReplicaTarget:
        self._turn += 1
        standing.started(ticket.tokens, self._turn, now_s)
        if ticket.lane is not None:
            ticket.lane.unwait(ticket)
            ticket.lane.start(ticket, now_s)
        target = standing.target
        ticket.state = TicketState.RUNNING
        ticket.place = standing
        ticket.started_at_s = now_s
        ticket.tried += (target.replica_id,)
        return target

    def _leave(self, ticket: Ticket, outcome: Outcome, output_tokens: int, now_s: float) -> Effects:
        self._end(ticket, outcome, output_tokens, now_s)
        deployment = self._deployments.get(ticket.deployment_id)
        if deployment is None or not (deployment.fair.waiting or deployment.again):
            return _NOTHING
        return self._dispatch(deployment, now_s)

    def _end(self, ticket: Ticket, outcome: Outcome, output_tokens: int, now_s: float) -> None:
        standing = ticket.place
        assert standing is not None  # a running ticket is somewhere
        ticket.place = None
        standing.ended(ticket.tokens)
        if ticket.lane is not None:
            ticket.lane.end(ticket, ticket.used, now_s)
        settings = self._settings
        started_s = ticket.started_at_s
        if outcome is Outcome.ENGINE_FAILED:
            standing.failed(started_s, now_s, settings.eject_after_failures, settings.eject_s_max)
        elif outcome is not Outcome.CLIENT_LEFT:
            if standing.failures:
                standing.succeeded(started_s, settings.eject_s)
            if standing.learn(output_tokens, now_s - started_s):
                self._assume_speed(ticket.deployment_id)
        elif standing.probing:
            standing.left(started_s)
        if not standing.ready and not standing.running:
            deployment = self._deployments.get(ticket.deployment_id)
            if deployment is not None:
                deployment.known.pop(standing.target.replica_id, None)
                self._forget_if_gone(ticket.deployment_id, deployment)

    def _assume_speed(self, deployment_id: DeploymentId) -> None:
        deployment = self._deployments.get(deployment_id)
        ready = [] if deployment is None else deployment.ready
        best = max((s.tokens_per_s for s in ready if s.measured or s.told), default=None)
        if best is not None:
            for standing in ready:
                standing.assume(best)

    def _dispatch(self, deployment: Deployment, now_s: float) -> Effects:
        """Start whatever can run now: those that were let down, lanes, then by the fair order."""
        if not deployment.waiting:
            return _NOTHING
        effects: list[Effect] = []
        for ticket in list(deployment.again):
            standing = choose(deployment.ready, ticket.tokens, ticket.tried, now_s)
            if standing is not None:
                del deployment.again[ticket]
                effects.append(Start(ticket, self._place(ticket, standing, now_s)))
            elif not any_left(deployment.ready, ticket.tried):
                del deployment.again[ticket]
                retry_s = self._drain_retry_s(deployment, now_s)
                self._turned_away(ticket, Shed(ShedReason.TRIES_EXHAUSTED, retry_s))
                effects.append(ShedLate(ticket, ShedReason.TRIES_EXHAUSTED, retry_s))
        fair = deployment.fair
        while deployment.lanes and (lane := deployment.lanes.due(now_s)) is not None:
            first = next(iter(lane.waiting))
            standing = choose(deployment.ready, first.tokens, (), now_s)
            if standing is None:
                break
            fair.remove(first)
            effects.append(Start(first, self._place(first, standing, now_s)))
        while (head := fair.head()) is not None:
            standing = choose(deployment.ready, head.tokens, (), now_s)
            if standing is None:
                break
            fair.pop(now_s)
            effects.append(Start(head, self._place(head, standing, now_s)))
        return effects

    def _time_out(self, deployment: Deployment, now_s: float, effects: list[Effect]) -> None:
        limit_s = now_s - self._settings.queue_wait_s
        while (oldest := deployment.oldest()) is not None and oldest.queued_at_s <= limit_s:
            self._unqueue(deployment, oldest)
            oldest.state = TicketState.DONE
            if oldest.lane is not None:
                oldest.lane.refuse(oldest)
            if deployment.ready:
                retry_s = self._drain_retry_s(deployment, now_s)
                effects.append(ShedLate(oldest, ShedReason.OVERLOADED, retry_s))
            else:
                shed = self._shed_without_replica(deployment, now_s)
                effects.append(ShedLate(oldest, shed.reason, shed.retry_after_s))

    def _unqueue(self, deployment: Deployment, ticket: Ticket) -> None:
        if ticket in deployment.again:
            del deployment.again[ticket]
        else:
            deployment.fair.remove(ticket)
            if ticket.lane is not None:
                ticket.lane.unwait(ticket)

    def _shed_without_replica(self, deployment: Deployment | None, now_s: float) -> Shed:
        if deployment is not None and deployment.starting:
            left_s = deployment.loading.left_s(now_s)
            retry_s = _MODEL_LOADING_RETRY_S if left_s is None else ceil(left_s)
            retry_s = min(max(retry_s, RETRY_AFTER_S_MIN), _MODEL_LOADING_RETRY_S_MAX)
            return Shed(ShedReason.MODEL_LOADING, retry_s)
        return Shed(ShedReason.UNAVAILABLE, _UNAVAILABLE_RETRY_S)

    def _drain_retry_s(self, deployment: Deployment, now_s: float) -> int:
        drained_s = deployment.fair.drained_in_s(now_s)
        if drained_s is None:
            drained_s = self._settings.queue_wait_s
        return min(max(ceil(drained_s), RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX)

    def _forget_if_gone(self, deployment_id: DeploymentId, deployment: Deployment) -> None:
        if not (deployment.known or deployment.starting or deployment.waiting):
            self._deployments.pop(deployment_id, None)
