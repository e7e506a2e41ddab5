"""The paths of the endpoint and what each asks of an engine."""

from dataclasses import dataclass
from typing import Final

from appliance.domain.usage import Operation
from appliance.gateway.errors import Family


@dataclass(frozen=True, slots=True)
class Route:
    """An operation as a path. `upstream` is the path at the engine."""

    operation: Operation
    upstream: str
    family: Family = Family.OPENAI
    streams: bool = False
    generates: bool = False  # makes output tokens, so some are reserved
    metered: bool = True  # False: no model runs, the record holds no tokens
    messages: bool = False  # the body has to hold messages
    multipart: bool = False  # a form, not JSON


CHAT: Final = Route(
    Operation.CHAT, "/v1/chat/completions", streams=True, generates=True, messages=True
)
COMPLETIONS: Final = Route(Operation.COMPLETIONS, "/v1/completions", streams=True, generates=True)
EMBEDDINGS: Final = Route(Operation.EMBEDDINGS, "/v1/embeddings")
RESPONSES: Final = Route(Operation.RESPONSES, "/v1/responses", streams=True, generates=True)
MESSAGES: Final = Route(
    Operation.MESSAGES,
    "/v1/messages",
    Family.ANTHROPIC,
    streams=True,
    generates=True,
    messages=True,
)
COUNT_TOKENS: Final = Route(
    Operation.COUNT_TOKENS,
    "/v1/messages/count_tokens",
    Family.ANTHROPIC,
    metered=False,
    messages=True,
)
RERANK: Final = Route(Operation.RERANK, "/v1/rerank")
SCORE: Final = Route(Operation.SCORE, "/v1/score")
TOKENIZE: Final = Route(Operation.TOKENIZE, "/tokenize", metered=False)
DETOKENIZE: Final = Route(Operation.DETOKENIZE, "/detokenize", metered=False)
TRANSCRIPTIONS: Final = Route(
    Operation.TRANSCRIPTIONS, "/v1/audio/transcriptions", generates=True, multipart=True
)

ROUTES: Final = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETIONS,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
    "/v1/messages/count_tokens": COUNT_TOKENS,
    "/v1/rerank": RERANK,
    "/rerank": RERANK,
    "/v1/score": SCORE,
    "/score": SCORE,
    "/tokenize": TOKENIZE,
    "/v1/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
    "/v1/detokenize": DETOKENIZE,
    "/v1/audio/transcriptions": TRANSCRIPTIONS,
}
MODELS_PATH: Final = "/v1/models"
HEALTH_PATHS: Final = frozenset({"/healthz", "/readyz"})


def family(path: str) -> Family:
    """Whose envelope an error on this path has, known or not."""
    return Family.ANTHROPIC if path.startswith("/v1/messages") else Family.OPENAI
