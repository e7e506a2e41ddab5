"""An admitted request, from its place in the queue to its record.

An exchange is a ticket of the scheduler and the receiver of an engine's answer. Whatever happens,
it ends in one settlement: everything that ends it goes through `_settle`, and what is last to leave
for the client leaves in `_settled`, when the record is durable.
"""

import asyncio
from enum import IntEnum
from typing import Final

from appliance.domain.ids import RecordId
from appliance.domain.usage import Status
from appliance.gateway import answers, journal, refusals, sse
from appliance.gateway.answer_head import AnswerHead
from appliance.gateway.call import Call
from appliance.gateway.delivery import Delivery
from appliance.gateway.dialects import DIALECTS
from appliance.gateway.errors import (
    ClientLeft,
    EngineError,
    EngineTimeout,
    GatewayError,
    Overloaded,
    ShuttingDown,
    http_status,
)
from appliance.gateway.idempotency import Kept
from appliance.gateway.naming import Naming
from appliance.gateway.order import Order
from appliance.gateway.relay import Relay
from appliance.gateway.tally import Tally
from appliance.gateway.traffic import InFlight, PhaseWord
from appliance.gateway.upstream import Connection
from appliance.gateway.wiring import Wiring
from appliance.metering.accounting import Figures
from appliance.metering.records import Settlement
from appliance.scheduler.replicas import ReplicaTarget
from appliance.scheduler.tickets import (
    Admission,
    Outcome,
    Placed,
    Shed,
    ShedReason,
    Ticket,
)

_FIRST_COMMENT_S: Final = 2.0  # in the queue, before a stream is told that we are still there
_NEXT_COMMENT_S: Final = 10.0


class Phase(IntEnum):
    QUEUED = 0
    CONNECTING = 1
    SENT = 2  # the engine has the request
    SETTLING = 3  # nothing more is wanted of the engine
    DONE = 4


class Exchange(Ticket):
    """One order at work. The pipeline waits for `finished`; callbacks do the rest."""

    __slots__ = (
        "_answer",
        "_begun",
        "_call",
        "_comment_s",
        "_connection",
        "_delivery",
        "_failure",
        "_first_token_s",
        "_full",
        "_last",
        "_moved",
        "_moved_s",
        "_naming",
        "_opening",
        "_order",
        "_phase",
        "_record_id",
        "_relay",
        "_sent_s",
        "_served_by",
        "_started_s",
        "_tally",
        "_wiring",
        "finished",
    )

    def __init__(self, wiring: Wiring, call: Call, order: Order) -> None:
        entry = order.entry
        caller = order.caller
        super().__init__(
            *(entry.deployment_id, caller.tenant_id, order.reservation.tokens),
            caller.environment_id,
        )
        self._wiring = wiring
        self._call = call
        self._order = order
        self._started_s = wiring.clock.monotonic_s()
        self._record_id = RecordId(wiring.new_id("record"))
        self._opening = order.opening(self._record_id, call.request_id, wiring.clock.wall_ns())
        self._phase = Phase.QUEUED
        self._begun = False  # the opening is durable
        self._delivery = Delivery(call, order.lines, wiring.stats)
        self._connection: Connection | None = None
        self._relay: Relay | None = None
        self._served_by: ReplicaTarget | None = None
        self._naming: Naming | None = None
        self._sent_s = 0.0
        self._moved = False  # the stream went on since the last look at its deadlines
        self._moved_s = 0.0  # when that was seen
        self._first_token_s: float | None = None
        self._comment_s = self._started_s + _FIRST_COMMENT_S
        self._full = False  # the client takes nothing
        self._failure: GatewayError | None = None  # what the client will be told
        self._last = b""  # held until the record is durable
        self._tally = Tally(order, wiring.estimator)
        self._answer: Kept | None = None  # when it is not a stream
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def answer(self) -> Kept | None:
        """What was answered, if it was a whole success."""
        return self._answer

    def seen(self) -> InFlight:
        """It as of now, without its content, for those who watch the site."""
        opening, relay, target = self._opening, self._relay, self._served_by
        waiting: PhaseWord = "queued" if self._phase is Phase.QUEUED else "waiting"
        return InFlight(
            request_id=opening.request_id,
            tenant_id=opening.tenant_id,
            tenant=opening.tenant_name,
            environment=opening.environment_name,
            key=opening.key_name,
            deployment=opening.model_name,
            replica_id=None if target is None else target.replica_id,
            node=None if target is None else target.node_name,
            operation=opening.operation,
            phase="streaming" if self._first_token_s is not None else waiting,
            stream=self._order.ask.stream,
            opened_at_ns=opening.opened_at_ns,
            prompt_tokens=opening.prompt_estimate,
            output_tokens=0 if relay is None else relay.tokens,
            client=self._call.connection.peer,
            reservation_id=None if self.lane is None else self.lane.spec.reservation_id,
        )

    # Admission.

    def start(self) -> None:
        """Ask for a replica. Raises Overloaded, with nothing held, when there is none to be had."""
        wiring = self._wiring
        admission = wiring.scheduler.arrive(self, self._started_s)
        if isinstance(admission, Shed):
            wiring.limits.release(self._order.reservation, self._started_s)
            raise refusals.shed(admission.reason, admission.retry_after_s, self._order.entry.name)
        wiring.running.add(self)
        self._call.connection.flow = self
        wiring.ledger.begin(self._opening, self._opened)
        self._go_on(admission)

    def run_on(self, target: ReplicaTarget) -> None:
        """The scheduler has a replica for it."""
        self._served_by = target
        self._naming = self._order.naming(target)
        self._phase = Phase.CONNECTING
        connection = self._wiring.pools.of(target).take()
        if connection is not None:
            self._send(connection, target)
        else:
            self._connect(target)

    def shed(self, reason: ShedReason, retry_after_s: int) -> None:
        """The scheduler turns it away: its turn did not come, or no replica is left to try."""
        failure = self._failure
        if failure is None or reason is not ShedReason.TRIES_EXHAUSTED:
            failure = refusals.shed(reason, retry_after_s, self._order.entry.name)
        self._settle(Status.FAILED, Outcome.ENGINE_FAILED, failure)

    def _go_on(self, admission: Admission) -> None:
        if isinstance(admission, Placed):
            self.run_on(admission.target)
        elif isinstance(admission, Shed):
            self.shed(admission.reason, admission.retry_after_s)
        else:
            self._phase = Phase.QUEUED

    def _connect(self, target: ReplicaTarget) -> None:
        tries = len(self.tried)

        def connected(connection: Connection | None, reason: str) -> None:
            if self._phase is not Phase.CONNECTING or len(self.tried) != tries:
                if connection is not None:
                    self._wiring.pools.of(target).put(connection)
            elif connection is None:
                away = target.server_name is not None  # its host cannot be reached, or its door
                error = refusals.unreachable(self._order.entry.name) if away else answers.failed()
                self._engine_failed(error, reason)
            else:
                self._send(connection, target)

        self._wiring.pools.connect(target, connected)

    def _send(self, connection: Connection, target: ReplicaTarget) -> None:
        self._phase = Phase.SENT
        self._connection = connection
        self._sent_s = self._wiring.clock.monotonic_s()
        connection.send(self, self._order.for_engine(target, self._call.request_id))

    # The engine's answer.

    def answered(self, head: AnswerHead, body: bytes) -> None:
        self._connection = None
        order = self._order
        status = head.status
        if not 200 <= status < 300:
            self._engine_refused(status, body)
            return
        if order.ask.stream:
            self._engine_failed(answers.failed(), f"content type {head.content_type!r}")
            return
        try:
            figures = answers.read(head, body, order.route)
        except answers.Unusable as error:
            self._engine_failed(answers.failed(), str(error))
            return
        self._tally.take_answer(figures, body)
        naming = self._naming
        if naming is not None and head.content_type == answers.JSON:
            body = naming.for_client(body)
        line = b"x-crosslogic-usage: %b\r\n" % self._record_id.encode()
        self._answer = Kept(status, head.content_type, body, line)
        self._settle(Status.OK, Outcome.OK, None)

    def streams(self) -> None:
        order = self._order
        if not order.ask.stream:
            self._abort_engine()
            self._engine_failed(answers.failed(), "a stream that was not asked for")
            return
        self._relay = Relay(
            DIALECTS[order.route.operation],
            asked=order.ask.usage_asked,
            every=order.ask.usage_on_every,
            chunked=self._call.version11,
            naming=self._naming,
        )

    def payload(self, data: bytes, framed: bytes | None) -> None:
        relay = self._relay
        if relay is None:
            return
        out = relay.feed(data, framed)
        if relay.alive:
            self._moved = True
            if self._first_token_s is None:
                self._first_token(self._wiring.clock.monotonic_s())
            elif not self._begun and self._delivery.crowded and self._connection is not None:
                self._connection.pause_reading()
        if out:
            self._delivery.write(out)
        if relay.failure:
            self._abort_engine()
            self._stream_broke(relay.failure)
        elif relay.done:
            if self._connection is not None:
                self._connection.release()
            self._stream_done(relay)

    def ended(self) -> None:
        self._connection = None
        if self._relay is not None:
            self._relay.close()
            if self._relay.failure:
                self._stream_broke(self._relay.failure)

    def lost(self, reason: str, *, unused: bool) -> None:
        self._connection = None
        if self._phase is not Phase.SENT:
            return
        if unused and self._served_by is not None:
            # An idle connection that the engine closed as we took it: that is no failure of it.
            self._phase = Phase.CONNECTING
            self._connect(self._served_by)
        else:
            self._stream_broke(reason)

    def _first_token(self, now_s: float) -> None:
        self._first_token_s = now_s - self._started_s
        self._wiring.stats.first_token.observe(self._first_token_s)
        self._wiring.apply(self._wiring.scheduler.first_byte(self, now_s))

    def _stream_done(self, relay: Relay) -> None:
        self._tally.take_stream(relay)
        tokens = self._tally.tokens
        last = b"".join(relay.held)
        self._last = relay.final_usage(Figures(tokens.input, tokens.output)) + last
        self._settle(Status.OK, Outcome.OK, None)

    def _stream_broke(self, reason: str) -> None:
        """Before the first token another replica may do it; after it the client is told."""
        if self._first_token_s is None:
            self._relay = None
            self._engine_failed(answers.failed(), reason)
            return
        self._log_failure(reason)
        self._count_what_came()
        self._settle(Status.FAILED, Outcome.ENGINE_FAILED, answers.failed())

    def _engine_refused(self, status: int, body: bytes) -> None:
        if answers.retried(status):
            error: GatewayError = answers.failed()
            if status == 429:
                error = Overloaded("The model's engine takes no more requests.", retry_after_s=5)
            # A sound answer proves that the engine lives, whatever it says of the request.
            sound = status == 500 and answers.is_sound_error(body)
            outcome = Outcome.REFUSED_BY_ENGINE if sound else Outcome.ENGINE_FAILED
            self._engine_failed(error, f"status {status}", outcome)
            return
        refusal = answers.refused(status, body)
        if isinstance(refusal, EngineError):
            self._log_failure(f"status {status}")
        self._settle(Status.FAILED, Outcome.REFUSED_BY_ENGINE, refusal)

    def _engine_failed(
        self, error: GatewayError, reason: str, outcome: Outcome = Outcome.ENGINE_FAILED
    ) -> None:
        """Nothing of the answer has come: try another replica, if there is one."""
        self._log_failure(reason)
        self._failure = error
        wiring = self._wiring
        wiring.stats.retries += 1
        admission, effects = wiring.scheduler.retry(self, wiring.clock.monotonic_s(), outcome)
        self._go_on(admission)
        wiring.apply(effects)

    # The client.

    def _opened(self, error: BaseException | None) -> None:
        if error is None:
            self._begun = True
            self._delivery.allow()
            if self._connection is not None and not self._full:
                self._connection.resume_reading()
        elif self._phase < Phase.SETTLING:
            self._delivery.discard()
            self._end_early(Status.FAILED, refusals.unrecorded())

    def client_full(self) -> None:
        self._full = True
        if self._connection is not None:
            self._connection.pause_reading()

    def client_drained(self) -> None:
        self._full = False
        self._moved = True
        if self._connection is not None:
            self._connection.resume_reading()

    def client_left(self) -> None:
        """The client is gone: the engine stops, and what it generated is recorded."""
        if self._phase < Phase.SETTLING:
            self._end_early(Status.ABORTED, ClientLeft("The client closed the connection."))

    # Ends that nobody in the exchange asked for.

    def stop(self) -> None:
        if self._phase < Phase.SETTLING:
            self._end_early(Status.ABORTED, ShuttingDown("The appliance is stopping."))

    def check(self, now_s: float) -> None:
        timeouts = self._wiring.settings.timeouts
        if self._phase >= Phase.SETTLING:
            return
        if self._moved:
            self._moved = False
            self._moved_s = now_s
        if now_s - self._started_s > timeouts.total_s:
            self._time_out("the whole request")
        elif self._phase is Phase.QUEUED:
            if self._order.ask.stream and now_s >= self._comment_s:
                self._comment_s = now_s + _NEXT_COMMENT_S
                self._delivery.write(self._call.framed(sse.COMMENT))
        elif self._phase is Phase.SENT:
            if self._first_token_s is None:
                if now_s - self._sent_s > timeouts.first_token_s:
                    self._abort_engine()
                    self._relay = None
                    self._engine_failed(engine_timeout(), "the first token did not come in time")
            elif not self._full and now_s - self._moved_s > timeouts.token_gap_s:
                self._time_out("the next token")

    def _time_out(self, what: str) -> None:
        self._log_failure(f"{what} did not come in time")
        self._end_early(Status.FAILED, engine_timeout())

    def _end_early(self, status: Status, error: GatewayError) -> None:
        sent = self._phase is Phase.SENT
        self._abort_engine()
        if sent and (status is Status.ABORTED or self._relay is not None):
            self._count_what_came()
        outcome = Outcome.ENGINE_FAILED if isinstance(error, EngineTimeout) else Outcome.CLIENT_LEFT
        self._settle(status, outcome, error)

    def _abort_engine(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    # The record.

    def _count_what_came(self) -> None:
        """Of an answer that was cut off: what the engine had generated by then."""
        if self._relay is None:
            self._tally.take_silence()
        else:
            self._tally.take_stream(self._relay)

    def _settle(self, status: Status, outcome: Outcome, failure: GatewayError | None) -> None:
        """End it. Whoever comes second changes nothing."""
        if self._phase >= Phase.SETTLING:
            return
        wiring = self._wiring
        now_s = wiring.clock.monotonic_s()
        self._phase = Phase.SETTLING
        self._failure = failure
        tokens = self._tally.tokens
        # What an engine had to look at counts as a request, unless it was the site that failed.
        site_failed = outcome is Outcome.ENGINE_FAILED
        if tokens.total or status is Status.OK or (self._sent_s and not site_failed):
            wiring.limits.settle(self._order.reservation, tokens.total, now_s)
            if self._order.spared and not self.reserved:  # the promise was used up when it started
                wiring.limits.count(self._order.spared, tokens.total, now_s)
        else:
            wiring.limits.release(self._order.reservation, now_s)
        self.used = tokens.total
        effects = wiring.scheduler.finish(self, outcome, tokens.output, now_s)
        latency_s = now_s - self._started_s
        operation = self._order.route.operation
        name = self._order.entry.name
        wiring.stats.settled(operation, name, status, tokens, latency_s)
        wiring.traffic.settled(name, self.tenant_id, status, tokens, self._first_token_s)
        wiring.ledger.settle(
            Settlement(
                opening=self._order.billed(self._opening, reserved=self.reserved),
                status=status,
                tokens=tokens,
                measured=self._tally.measured,
                http_status=self._status_told(),
                error_code="" if failure is None else failure.code,
                node_name="" if self._served_by is None else self._served_by.node_name,
                settled_at_ns=wiring.clock.wall_ns(),
                latency_ms=int(latency_s * 1000),
                first_token_ms=(
                    None if self._first_token_s is None else int(self._first_token_s * 1000)
                ),
            ),
            self._settled,
        )
        wiring.apply(effects)

    def _settled(self, error: BaseException | None) -> None:
        """The record is durable, or will not be: the last bytes may leave."""
        if self._phase is Phase.DONE:
            return
        self._phase = Phase.DONE
        self._wiring.running.discard(self)
        self._call.connection.flow = None
        failure = self._failure if error is None else refusals.unrecorded()
        if failure is not None:
            self._answer = None
            self._delivery.fail(failure)
        elif self._answer is not None:
            self._delivery.answer(self._answer)
        else:
            self._delivery.end_stream(self._last)
        journal.ended(
            self._call.request_id,
            self._record_id,
            self._order,
            self._tally,
            self._status_told(),
            failure,
        )
        if not self.finished.done():
            self.finished.set_result(None)

    def _status_told(self) -> int:
        """What the client sees: once a stream has begun, its head said 200."""
        failure = self._failure
        streamed = self._delivery.streamed
        if failure is None or (streamed and failure.status != ClientLeft.status):
            return 200
        return http_status(failure, self._call.family)

    def _log_failure(self, reason: str) -> None:
        journal.engine_failed(
            self._call.request_id, self._record_id, self._order, self._served_by, reason
        )


def engine_timeout() -> EngineTimeout:
    return EngineTimeout("The model's engine did not answer in time.")
