"""Words for measured tokens: what one request used, and how we know."""

from dataclasses import dataclass
from enum import StrEnum


class Operation(StrEnum):
    """What was asked of the engine; the value is the name used in records and settings."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    RERANK = "rerank"
    SCORE = "score"
    TOKENIZE = "tokenize"
    DETOKENIZE = "detokenize"
    TRANSCRIPTIONS = "transcriptions"


class Status(StrEnum):
    """How a request ended. Every admitted request ends in exactly one of these."""

    OK = "ok"
    ABORTED = "aborted"  # the client left, or the appliance was stopped
    FAILED = "failed"  # the engine failed


class Measured(StrEnum):
    """How the tokens of a record are known, from best to least."""

    ENGINE = "engine"  # the engine's own usage figures
    COUNTED = "counted"  # counted from the events that were streamed
    ESTIMATED = "estimated"  # from byte lengths; nothing better was to be had


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of one request. `cached` is the part of `input` that came from a prefix cache."""

    input: int = 0
    output: int = 0
    cached: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output
