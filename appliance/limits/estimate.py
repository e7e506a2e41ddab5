"""How many tokens a prompt will be, guessed from the bytes of the request's body.

Counting needs the engine's tokenizer, which costs a round trip or a copy of it in this process. A
reservation only needs a figure that is seldom too low; a record of a request whose engine told
nothing needs the likeliest one.
"""

from typing import Final

from appliance.domain.ids import DeploymentId

# No common tokenizer makes more than one token of one byte of text, and the JSON around the text
# pays for the few tokens that a chat template adds.
_RATIO_AT_FIRST: Final = 1.0
# Before anything was measured: English prose has about four bytes a token.
_LIKELY_AT_FIRST: Final = 0.25
# Each measurement below the ratio takes it down by this share of the difference: after about 70
# requests like the last ones, what came before is a tenth of the figure.
_DECAY: Final = 1 / 32
_NEWEST_WEIGHT: Final = 1 / 8  # of the newest measurement in the moving average
# Bodies are told apart by size, four times each: a short body is half JSON and template, a long
# one is text, a very long one may be a picture. The last class holds all from 4**12 = 16 MiB.
_CLASSES: Final = 13


class PromptEstimator:
    """Tokens per byte for each deployment and size of body, learnt from what engines measured.

    The most follows a decaying maximum: up at once to whatever was seen, down slowly. The likely is
    a moving average, which begins with the first measurement.
    """

    __slots__ = ("_likely", "_most")

    def __init__(self) -> None:
        self._most: dict[DeploymentId, list[float]] = {}
        self._likely: dict[tuple[DeploymentId, int], float] = {}

    def estimate(
        self, deployment_id: DeploymentId, body_bytes: int, context_tokens: int | None = None
    ) -> int:
        """The most a body of `body_bytes` will be; never more than the context can hold."""
        ratios = self._most.get(deployment_id)
        ratio = _RATIO_AT_FIRST if ratios is None else ratios[_class(body_bytes)]
        tokens = int(body_bytes * ratio) + 1
        if context_tokens is not None and tokens > context_tokens:
            return context_tokens
        return tokens

    def likely(self, deployment_id: DeploymentId, body_bytes: int) -> int:
        """What a body of `body_bytes` will probably be: for records, not for reservations."""
        ratio = self._likely.get((deployment_id, _class(body_bytes)), _LIKELY_AT_FIRST)
        return int(body_bytes * ratio) + 1

    def observe(self, deployment_id: DeploymentId, body_bytes: int, prompt_tokens: int) -> None:
        """Learn what the engine counted for a body of `body_bytes`."""
        if body_bytes <= 0 or prompt_tokens <= 0:
            return
        ratios = self._most.get(deployment_id)
        if ratios is None:
            ratios = self._most[deployment_id] = [_RATIO_AT_FIRST] * _CLASSES
        sample = prompt_tokens / body_bytes
        size = _class(body_bytes)
        ratio = ratios[size]
        ratios[size] = sample if sample >= ratio else ratio - _DECAY * (ratio - sample)
        likely = self._likely.get((deployment_id, size), sample)
        self._likely[deployment_id, size] = likely + _NEWEST_WEIGHT * (sample - likely)


def _class(body_bytes: int) -> int:
    return min(body_bytes.bit_length() >> 1, _CLASSES - 1)
