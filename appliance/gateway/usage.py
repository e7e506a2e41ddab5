"""Usage as engines write it, in any dialect. What is believed of it is decided in metering."""

from typing import Final

import msgspec

from appliance.metering.accounting import Figures


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
