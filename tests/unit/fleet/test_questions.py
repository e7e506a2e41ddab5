"""A question waits for the node it was put to, and for no longer than its deadline."""

import asyncio

import msgspec
import pytest

from appliance.domain.ids import NodeId
from appliance.fleet.errors import NodeSilent
from appliance.fleet.questions import QuestionDesk
from appliance.wire.agent import Answer

N1, N2 = NodeId("nod_1"), NodeId("nod_2")


async def test_an_answer_counts_only_from_the_node_that_was_asked() -> None:
    desk = QuestionDesk(entropy=bytes)
    waiting = asyncio.create_task(desk.ask(N1, "gpu_history", "GPU-0", deadline_s=5.0))
    await asyncio.sleep(0)
    (question,) = desk.for_node(N1)
    assert (question.kind, question.subject, desk.for_node(N2)) == ("gpu_history", "GPU-0", ())
    lie = Answer(question_id=question.question_id, content=msgspec.Raw(b'"lie"'))
    desk.hear(N2, [lie])
    truth = msgspec.structs.replace(lie, content=msgspec.Raw(b'"truth"'))
    desk.hear(N1, [truth])
    desk.hear(N1, [lie])  # told again before it was heard: the first counts
    assert bytes(await waiting) == b'"truth"'
    assert desk.for_node(N1) == ()
    desk.hear(N1, [truth])  # nobody waits any more


async def test_silence_and_a_problem_are_errors_with_a_reason() -> None:
    desk = QuestionDesk()
    with pytest.raises(NodeSilent, match="did not answer"):
        await desk.ask(N1, "gpu_history", deadline_s=0.01)
    waiting = asyncio.create_task(desk.ask(N1, "engine_log", "rep_1"))
    await asyncio.sleep(0)
    (question,) = desk.for_node(N1)
    desk.hear(N1, [Answer(question_id=question.question_id, problem="No such engine.")])
    with pytest.raises(NodeSilent, match=r"No such engine\."):
        await waiting
    assert desk.for_node(N1) == ()
