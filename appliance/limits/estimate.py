"""How many tokens a prompt will be, guessed from the bytes of the request's body.

Counting needs the engine's tokenizer, which costs a round trip or a copy of it in this process;
a reservation only needs a figure that is seldom too low.
"""

from typing import Final

from appliance.domain.ids import DeploymentId

# No common tokenizer makes more than one token of one byte of text, and the JSON around the text
# pays for the few tokens that a chat template adds.
_RATIO_AT_FIRST: Final = 1.0
# Each measurement below the ratio takes it down by this share of the difference: after about 70
# requests like the last ones, what came before is a tenth of the figure.
_DECAY: Final = 1 / 32
# Bodies are told apart by size, four times each: a short body is half JSON and template, a long
# one is text, a very long one may be a picture. The last class holds all from 4**12 = 16 MiB.
_CLASSES: Final = 13


class PromptEstimator:
    """Tokens per byte for each deployment and size of body, learnt from what engines measured.

    Follows a decaying maximum: up at once to whatever was seen, down slowly.
    """

    __slots__ = ("_ratios",)

    def __init__(self) -> None:
        self._ratios: dict[DeploymentId, list[float]] = {}

    def estimate(
        self, deployment_id: DeploymentId, body_bytes: int, context_tokens: int | None = None
    ) -> int:
        """Prompt tokens of a body of `body_bytes`; never more than the context can hold."""
        ratios = self._ratios.get(deployment_id)
        ratio = _RATIO_AT_FIRST if ratios is None else ratios[_class(body_bytes)]
        tokens = int(body_bytes * ratio) + 1
        if context_tokens is not None and tokens > context_tokens:
            return context_tokens
        return tokens

    def observe(self, deployment_id: DeploymentId, body_bytes: int, prompt_tokens: int) -> None:
        """Learn what the engine counted for a body of `body_bytes`."""
        if body_bytes <= 0 or prompt_tokens <= 0:
            return
        ratios = self._ratios.get(deployment_id)
        if ratios is None:
            ratios = self._ratios[deployment_id] = [_RATIO_AT_FIRST] * _CLASSES
        sample = prompt_tokens / body_bytes
        size = _class(body_bytes)
        ratio = ratios[size]
        ratios[size] = sample if sample >= ratio else ratio - _DECAY * (ratio - sample)


def _class(body_bytes: int) -> int:
    return min(body_bytes.bit_length() >> 1, _CLASSES - 1)
