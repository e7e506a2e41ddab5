"""What the kinds of engines can do, as far as it is known before one runs."""

from enum import StrEnum
from typing import Final

from appliance.domain.usage import Operation
from appliance.registry.errors import InvalidValue


class Engine(StrEnum):
    LLAMACPP = "llamacpp"
    EXTERNAL = "external"


# Source: the routes of llama.cpp's server as xllamacpp 2026.10 has them.
_LLAMACPP_TEXT: Final = frozenset(
    {
        Operation.CHAT,
        Operation.COMPLETIONS,
        Operation.RESPONSES,
        Operation.MESSAGES,
        Operation.COUNT_TOKENS,
        Operation.TOKENIZE,
        Operation.DETOKENIZE,
    }
)
_LLAMACPP_EMBEDDING: Final = frozenset(
    {Operation.EMBEDDINGS, Operation.TOKENIZE, Operation.DETOKENIZE}
)
# An external engine has whatever its URL has: all is let through, and it answers for itself.
# Transcriptions take another form of body, and few engines have them.
_EXTERNAL: Final = frozenset(Operation) - {Operation.TRANSCRIPTIONS}


def default_operations(engine: Engine, *, embedding: bool) -> frozenset[Operation]:
    """What a deployment offers when it was not told."""
    if engine is Engine.EXTERNAL:
        return _EXTERNAL
    return _LLAMACPP_EMBEDDING if embedding else _LLAMACPP_TEXT


def engine_named(text: str) -> Engine:
    """Raises InvalidValue when this version has no such engine."""
    try:
        return Engine(text)
    except ValueError:
        raise InvalidValue(
            f"This version has no engine {text!r}.", next_step=f"Engines: {', '.join(Engine)}."
        ) from None
