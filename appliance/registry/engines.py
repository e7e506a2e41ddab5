"""What the kinds of engines can do, as far as it is known before one runs."""

from enum import StrEnum
from typing import Final

from appliance.domain.usage import Operation
from appliance.registry.errors import InvalidValue


class Engine(StrEnum):
    LLAMACPP = "llamacpp"
    VLLM = "vllm"
    SGLANG = "sglang"
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
# Source: the routes of vLLM's OpenAI-compatible server, versions 0.32 and 0.33.
_VLLM_TEXT: Final = _LLAMACPP_TEXT
# Source: the documentation of SGLang's OpenAI-compatible server.
_SGLANG_TEXT: Final = frozenset({Operation.CHAT, Operation.COMPLETIONS})
_TEXT: Final = {
    Engine.LLAMACPP: _LLAMACPP_TEXT,
    Engine.VLLM: _VLLM_TEXT,
    Engine.SGLANG: _SGLANG_TEXT,
}
_EMBEDDING: Final = {
    Engine.LLAMACPP: _LLAMACPP_EMBEDDING,
    Engine.VLLM: _LLAMACPP_EMBEDDING,
    Engine.SGLANG: frozenset({Operation.EMBEDDINGS}),
}
# An external engine has whatever its URL has: all is let through, and it answers for itself.
# Transcriptions take another form of body, and few engines have them.
_EXTERNAL: Final = frozenset(Operation) - {Operation.TRANSCRIPTIONS}


def default_operations(engine: Engine, *, embedding: bool) -> frozenset[Operation]:
    """What a deployment offers when it was not told."""
    if engine is Engine.EXTERNAL:
        return _EXTERNAL
    return _EMBEDDING[engine] if embedding else _TEXT[engine]


def engine_named(text: str) -> Engine:
    """Raises InvalidValue when this version has no such engine."""
    try:
        return Engine(text)
    except ValueError:
        raise InvalidValue(
            f"This version has no engine {text!r}.", next_step=f"Engines: {', '.join(Engine)}."
        ) from None
