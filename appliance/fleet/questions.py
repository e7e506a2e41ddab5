"""Questions to nodes: asked with the answers of their heartbeats, answered with the next ones."""

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from appliance.domain.ids import NodeId
from appliance.fleet.errors import NodeSilent
from appliance.wire.agent import Answer, Question, QuestionKind

DEADLINE_S: Final = 10.0
_ID_BYTES: Final = 12


class QuestionDesk:
    """Whoever asks waits here. An answer counts only from the node that was asked."""

    __slots__ = ("_entropy", "_waiting")

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._entropy = entropy
        self._waiting: dict[NodeId, dict[str, tuple[Question, asyncio.Future[Answer]]]] = {}

    async def ask(
        self, node_id: NodeId, kind: QuestionKind, subject: str = "", deadline_s: float = DEADLINE_S
    ) -> msgspec.Raw:
        """The answer's JSON. Raises NodeSilent: none came in time, or the node has none."""
        question_id = self._entropy(_ID_BYTES).hex()
        question = Question(question_id=question_id, kind=kind, subject=subject)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(node_id, {})[question_id] = question, answer
        try:
            async with asyncio.timeout(deadline_s):
                told = await answer
        except TimeoutError:
            raise NodeSilent(
                f"The node did not answer within {deadline_s:.0f} s.",
                next_step="See `cic node show` for when it was heard last, and try again.",
            ) from None
        finally:
            del self._waiting[node_id][question_id]
            if not self._waiting[node_id]:
                del self._waiting[node_id]
        if told.problem:
            raise NodeSilent(told.problem)
        return told.content

    def for_node(self, node_id: NodeId) -> tuple[Question, ...]:
        return tuple(question for question, _answer in self._waiting.get(node_id, {}).values())

    def hear(self, node_id: NodeId, answers: Sequence[Answer]) -> None:
        waiting = self._waiting.get(node_id, {})
        for answer in answers:
            _question, future = waiting.get(answer.question_id, (None, None))
            if future is not None and not future.done():
                future.set_result(answer)
