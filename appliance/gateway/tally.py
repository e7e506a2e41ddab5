"""The tokens of one request, as far as they are known."""

from appliance.domain.usage import Measured, TokenCount
from appliance.gateway import answers
from appliance.gateway.order import Order
from appliance.gateway.relay import Relay
from appliance.gateway.wiring import Estimator
from appliance.metering.accounting import Figures, estimate_output, settle


class Tally:
    """Nothing at first; then whatever one of these methods made of the engine's answer."""

    __slots__ = ("_estimator", "_order", "measured", "tokens")

    def __init__(self, order: Order, estimator: Estimator) -> None:
        self._order = order
        self._estimator = estimator
        self.tokens = TokenCount()
        self.measured = Measured.ENGINE

    def take_answer(self, figures: Figures | None, body: bytes) -> None:
        """An answer in one piece: the engine's figures, or what its text looks like."""
        route, bounds = self._order.route, self._order.bounds
        if not route.metered:
            return
        counted = settle(figures, 0, bounds, generates=route.generates, counted=False)
        if route.generates and counted[1] is not Measured.ENGINE:
            seen = self._estimate(figures, body)
            counted = settle(figures, seen, bounds, generates=True, counted=False)
        self._take(*counted)

    def _estimate(self, figures: Figures | None, body: bytes) -> int:
        """Output tokens of an answer whose engine does not tell, or not of all choices."""
        order = self._order
        asked, context = order.ask.output_tokens, order.entry.context_tokens
        if not order.bounds.one_choice_told or (asked is None and context is None):
            return estimate_output(answers.text_bytes(body))
        room = asked
        if context is not None:
            inputs = figures.input if figures is not None else None
            left = max(context - (inputs or 0), 0)
            room = left if asked is None else min(asked, left)
        return answers.tokens_of_choices(body, room or 0)

    def take_stream(self, relay: Relay) -> None:
        """A stream, whole or cut off: the engine's figures, or a token for each event."""
        figures = relay.figures
        if figures is not None and figures.output is not None and not relay.done:
            # Figures from before the cut may be older than what came since.
            figures = Figures(figures.input, max(figures.output, relay.tokens), figures.cached)
        self._take(*settle(figures, relay.tokens, self._order.bounds, generates=True))

    def take_silence(self) -> None:
        """The engine had the request and nothing of an answer came: it has read the prompt."""
        if self._order.route.metered:
            self.tokens = TokenCount(self._order.prompt_estimate)
            self.measured = Measured.ESTIMATED

    def _take(self, tokens: TokenCount, measured: Measured) -> None:
        self.tokens = tokens
        self.measured = measured
        if measured is Measured.ENGINE:
            order = self._order
            self._estimator.observe(order.entry.deployment_id, order.ask.input_bytes, tokens.input)
