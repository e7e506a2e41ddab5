"""What the appliance wants to know of this node, and the answers that wait to be told."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from agent.errors import AgentError
from appliance.wire.agent import Answer, Question

log = logging.getLogger(__name__)

ANSWER_BYTES_MAX: Final = 1024 * 1024  # several of them fit into one heartbeat
_DEADLINE_S: Final = 20.0

# Takes the question's subject; returns JSON. Raises AgentError: that is the answer, then.
Answerer = Callable[[str], Awaitable[bytes]]


class Questions:
    """A question is repeated until its answer has arrived, and the answer until it is not asked."""

    def __init__(
        self,
        answerers: Mapping[str, Answerer],
        tasks: asyncio.TaskGroup,
        changed: Callable[[], None],
    ) -> None:
        """`answerers` by kind of question; `changed` has the answers told soon."""
        self._answerers = answerers
        self._tasks = tasks
        self._changed = changed
        self._asked: dict[str, Answer | None] = {}  # None: it is being answered

    def answers(self) -> tuple[Answer, ...]:
        return tuple(answer for answer in self._asked.values() if answer is not None)

    def hear(self, questions: Sequence[Question]) -> None:
        """Begin to answer what is new, forget what is asked no more."""
        asked = {question.question_id: question for question in questions}
        self._asked = {key: answer for key, answer in self._asked.items() if key in asked}
        for question_id, question in asked.items():
            if question_id not in self._asked:
                self._asked[question_id] = None
                self._tasks.create_task(self._answer(question))

    async def _answer(self, question: Question) -> None:
        answer = await self._find(question)
        if question.question_id in self._asked:
            self._asked[question.question_id] = answer
            self._changed()

    async def _find(self, question: Question) -> Answer:
        answerer = self._answerers.get(question.kind)
        problem = f"This agent does not answer questions of the kind {question.kind!r}."
        if answerer is not None:
            try:
                async with asyncio.timeout(_DEADLINE_S):
                    content = await answerer(question.subject)
            except AgentError as error:
                problem = str(error)
            except (OSError, TimeoutError) as error:
                log.warning(
                    "question not answered", extra={"kind": question.kind, "why": str(error)}
                )
                problem = f"The node could not find out: {error or 'it took too long'}."
            else:
                if len(content) <= ANSWER_BYTES_MAX:
                    raw = msgspec.Raw(content)
                    return Answer(question_id=question.question_id, content=raw)
                problem = f"The answer is too large: {len(content)} bytes."
        return Answer(question_id=question.question_id, problem=problem)
