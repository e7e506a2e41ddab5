"""The life of a request, in the order of its steps.

authenticate → read → reserve → admit → relay → settle. The last three are the exchange's; each step
raises what the client is to be told.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from appliance.domain.limits import Layer, LayerLimits
from appliance.gateway import access, bodies, forms, head, refusals, request
from appliance.gateway.call import Call
from appliance.gateway.errors import GatewayError, UnsupportedOperation
from appliance.gateway.exchange import Exchange
from appliance.gateway.idempotency import Idempotency, Kept
from appliance.gateway.order import Order
from appliance.gateway.request import Ask
from appliance.gateway.routes import Route
from appliance.gateway.wiring import Estimator, Wiring
from appliance.limits.reservation import Refusal
from appliance.metering.accounting import Bounds
from appliance.registry.snapshot import Credential, DeploymentEntry, Snapshot

# Parsing more than this takes longer than other requests should wait.
_PARSE_IN_THREAD_BYTES: Final = 64 * 1024
# llama.cpp answers them all and reports the tokens of one: of several choices to one prompt the
# tokens can be counted, of several prompts not.
_ENGINES_OF_ONE_PROMPT: Final = frozenset({"llamacpp"})
_ENGINES_THAT_TELL_OF_ONE_CHOICE: Final = frozenset({"llamacpp"})
_OUTPUT_TOKENS: Final = 4_096  # reserved when neither the request nor the context says how many
# Tokens that are in no byte of the body: templates and special tokens, images behind a link.
_TEMPLATE_TOKENS: Final = 4_096
_NO_LAYERS: Final[tuple[LayerLimits, ...]] = ()
_REPLAYED: Final = b"Idempotency-Replayed: true\r\n"


class Pipeline:
    """Takes a request from its head to its last byte."""

    def __init__(
        self, wiring: Wiring, snapshot: Snapshot, digest: Callable[[str], bytes], secret: bytes
    ) -> None:
        settings = wiring.settings
        self._wiring = wiring
        self._digest = digest
        self._secret = secret  # of this process, for finding keys quickly
        self.swap(snapshot)
        self._bodies = bodies.Bodies(settings.gateway.body_bytes_max, settings.timeouts.body_s)
        self._idempotency = Idempotency()
        # One thread: large bodies are parsed one after the other, and in bounded memory.
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="parser")

    def close(self) -> None:
        self._parser.shutdown()

    def swap(self, snapshot: Snapshot) -> None:
        """Use new tables from the next request on."""
        self.snapshot = snapshot
        self._shared = len({c.tenant_id for c in snapshot.credentials.values()}) > 1
        self._keys = access.KeyRing(snapshot, self._digest, self._secret)

    def authenticate(self, call: Call) -> Credential:
        now_ns = self._wiring.clock.wall_ns()
        return access.authenticate(call.headers, call.family, self._keys, now_ns)

    async def run(self, call: Call, route: Route) -> None:
        """Answer the request. Raises GatewayError for what was never admitted."""
        caller = self.authenticate(call)
        access.may_run(caller)
        large = bodies.check_head(call, route, self._wiring.settings.gateway.body_bytes_max)
        with self._bodies.hold(caller.tenant_id) as holding:
            if large:
                body, ask = await self._take_in_large(call, route, caller, holding)
            else:
                body = await self._bodies.read(call, holding)
                ask = await self._parse(call, route, body)
            entry = access.deployment(caller, ask.model, route, self.snapshot)
            key = call.headers.get("Idempotency-Key")
            if key is None or ask.stream:
                await self._exchange(call, self._reserve(call, route, ask, body, caller, entry))
            else:
                await self._once(key, call, route, ask, body, caller, entry)

    async def _take_in_large(
        self, call: Call, route: Route, caller: Credential, holding: bodies.Holding
    ) -> tuple[bytes, Ask]:
        """A large body, which costs something before it is a request.

        So it needs a place within the limits while it comes, and what turns out to be no request is
        counted as one.
        """
        limits, clock = self._wiring.limits, self._wiring.clock
        place = limits.reserve(caller.layers, 1, clock.monotonic_s())
        if isinstance(place, Refusal):
            raise refusals.limited(place)
        sound = False
        try:
            body = await self._bodies.read(call, holding)
            ask = await self._parse(call, route, body)
            sound = True
        finally:
            if sound:
                limits.release(place, clock.monotonic_s())
            else:
                limits.settle(place, 0, clock.monotonic_s())
        return body, ask

    async def _parse(self, call: Call, route: Route, body: bytes) -> Ask:
        if route.multipart:
            return forms.parse(body, call.headers.get("Content-Type", ""))
        gateway = self._wiring.settings.gateway
        if len(body) <= _PARSE_IN_THREAD_BYTES:
            return request.parse(body, route, gateway.json_depth_max, gateway.messages_max)
        return await asyncio.get_running_loop().run_in_executor(
            self._parser, request.parse, body, route, gateway.json_depth_max, gateway.messages_max
        )

    async def _once(
        self,
        key: str,
        call: Call,
        route: Route,
        ask: Ask,
        body: bytes,
        caller: Credential,
        entry: DeploymentEntry,
    ) -> None:
        """Answer a request whose client may send it again, running it once."""
        now_s = self._wiring.clock.monotonic_s()
        kept = self._idempotency.begin(caller.key_id, key, call.path, body, now_s)
        if kept is not None:
            self._wiring.stats.replays += 1
            call.answer(
                kept.status, kept.body, kept.lines + _REPLAYED, content_type=kept.content_type
            )
            return
        answer: Kept | None = None
        try:
            exchange = await self._exchange(
                call, self._reserve(call, route, ask, body, caller, entry)
            )
            answer = exchange.answer
        finally:
            self._idempotency.end(caller.key_id, key, answer)

    def _reserve(
        self,
        call: Call,
        route: Route,
        ask: Ask,
        body: bytes,
        caller: Credential,
        entry: DeploymentEntry,
    ) -> Order:
        """Hold the tokens this request may use, in every layer. Raises when a limit refuses."""
        wiring = self._wiring
        if ask.inputs > 1 and route.generates and entry.engine in _ENGINES_OF_ONE_PROMPT:
            raise UnsupportedOperation(
                f"The deployment '{entry.name}' takes one prompt in a request.",
                next_step="Send one request for each prompt.",
                param="prompt",
            )
        most = likely = 0
        if route.metered:
            most = _input_tokens(ask, entry, wiring.estimator)
            likely = wiring.estimator.likely(entry.deployment_id, ask.input_bytes)
            likely = min(max(likely, ask.token_ids), most)
        tokens = most + (_output_tokens(ask, entry, most) if route.generates else 0)
        now_s = wiring.clock.monotonic_s()
        layers, spared = caller.layers, _NO_LAYERS
        # What was promised to a tenant is not the site's to take back.
        if wiring.scheduler.promised(
            entry.deployment_id, caller.tenant_id, caller.environment_id, now_s
        ):
            layers = tuple(each for each in layers if each.layer is not Layer.GLOBAL)
            spared = tuple(each for each in caller.layers if each.layer is Layer.GLOBAL)
        reservation = wiring.limits.reserve(layers, tokens, now_s)
        if isinstance(reservation, Refusal):
            raise refusals.limited(reservation)
        return Order(
            route=route,
            ask=ask,
            body=body,
            content_type=call.headers.get("Content-Type", "application/json").encode(
                "ascii", "replace"
            ),
            caller=caller,
            entry=entry,
            reservation=reservation,
            spared=spared,
            prompt_estimate=likely,
            bounds=_bounds(ask, entry, most, likely),
            lines=head.rate_limits(reservation.requests_gauge, reservation.tokens_gauge),
            shared=self._shared,
        )

    async def _exchange(self, call: Call, order: Order) -> Exchange:
        exchange = Exchange(self._wiring, call, order)
        try:
            exchange.start()
        except GatewayError as error:
            error.headers += order.lines
            raise
        try:
            await exchange.finished
        except asyncio.CancelledError:
            exchange.client_left()
            raise
        return exchange


def _input_tokens(ask: Ask, entry: DeploymentEntry, estimator: Estimator) -> int:
    """The most that the prompt, or all the inputs together, will probably be."""
    context = entry.context_tokens
    if context is not None:
        context *= ask.inputs
    estimate = estimator.estimate(entry.deployment_id, ask.input_bytes, context)
    if ask.token_ids > estimate:
        return ask.token_ids if context is None else min(ask.token_ids, context)
    return estimate


def _output_tokens(ask: Ask, entry: DeploymentEntry, estimate: int) -> int:
    """The most this request may generate."""
    context = entry.context_tokens
    if ask.output_tokens is not None:
        room = ask.output_tokens if context is None else min(ask.output_tokens, context)
    elif context is None:
        room = _OUTPUT_TOKENS
    else:
        room = max(context - estimate // ask.inputs, 1)
    return room * ask.choices


def _bounds(ask: Ask, entry: DeploymentEntry, most: int, likely: int) -> Bounds:
    context = entry.context_tokens
    choices = ask.choices
    each = 1 << 24 if context is None else context
    asked = ask.output_tokens
    if context is None:
        input_max = max(most, ask.input_bytes + _TEMPLATE_TOKENS) * choices
    else:
        input_max = context * choices
    return Bounds(
        input_max=input_max,
        output_max=each * choices,
        input_estimate=likely,
        output_asked=None if asked is None or asked > each else asked * choices,
        one_choice_told=choices > 1 and entry.engine in _ENGINES_THAT_TELL_OF_ONE_CHOICE,
    )
