"""How many tokens a request used, from what the engine said, or failing that from what was seen."""

from dataclasses import dataclass
from typing import Final

import msgspec

from appliance.domain.usage import Measured, TokenCount

# No engine has a context this large; a figure above it is noise.
_TOKENS_MAX: Final = 1 << 26


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    """The usage object of every dialect."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


_DECODE: Final = msgspec.json.Decoder(_Usage | None).decode


@dataclass(frozen=True, slots=True)
class Figures:
    """What an engine reported. None: it did not say."""

    input: int | None
    output: int | None
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What can be true of a request. Figures beyond it are not believed."""

    input_max: int
    output_max: int
    input_estimate: int


def read(raw: bytes | msgspec.Raw) -> Figures | None:
    """Figures out of a usage object; None when it is null or not one.

    Anthropic counts what came from or went to the cache beside `input_tokens`, OpenAI within.
    """
    if not raw:
        return None
    try:
        usage = _DECODE(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if usage is None:
        return None
    if usage.prompt_tokens is not None or usage.completion_tokens is not None:
        details = usage.prompt_tokens_details
        cached = details.cached_tokens if details is not None else None
        return Figures(usage.prompt_tokens, usage.completion_tokens, cached or 0)
    inputs = usage.input_tokens
    details = usage.input_tokens_details
    cached = details.cached_tokens if details is not None else usage.cache_read_input_tokens
    if inputs is not None and details is None:
        inputs += (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    return Figures(inputs, usage.output_tokens, cached or 0)


def settle(
    figures: Figures | None, counted: int, bounds: Bounds, *, generates: bool
) -> tuple[TokenCount, Measured]:
    """The tokens to bill and how they are known.

    Each figure is believed on its own: an engine that reports a sane prompt and an absurd output
    keeps the prompt, and the output is what was counted.
    """
    inputs = figures.input if figures is not None else None
    output = figures.output if figures is not None else None
    if inputs is not None and not 0 <= inputs <= min(bounds.input_max, _TOKENS_MAX):
        inputs = None
    if not generates and output is None:
        output = 0
    if output is not None and not 0 <= output <= min(bounds.output_max, _TOKENS_MAX):
        output = None
    measured = Measured.ENGINE if inputs is not None and output is not None else Measured.COUNTED
    if inputs is None:
        inputs = bounds.input_estimate
    cached = figures.cached if figures is not None else 0
    return (
        TokenCount(inputs, counted if output is None else output, min(max(cached, 0), inputs)),
        measured,
    )
