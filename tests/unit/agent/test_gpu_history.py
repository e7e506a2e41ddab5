"""Points of an hour and a day; what is asked of a node and how often it answers."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from agent.durable import read_message, write_message
from agent.errors import AgentError
from agent.gpu.forgetting import forget_gpu
from agent.gpu.history import GPUS_MAX, RINGS, History
from agent.gpu.inventory import KnownGpu, KnownXid, Remembered
from agent.gpu.watch import STATE_FILE
from agent.lock import held
from agent.questions import ANSWER_BYTES_MAX, Questions
from appliance.wire.agent import Question
from appliance.wire.command import CommandError, Invocation
from appliance.wire.gpu import GpuHistory
from appliance.wire.home import find_home
from tests.fakes.gpus import gpu

NS = 1_000_000_000


def test_a_point_is_the_mean_with_the_hottest_moment_and_the_lowest_score() -> None:
    history = History()
    for second, busy, celsius, score in ((100, 10, 60, 100), (103, 20, 91, 40), (109, 60, 70, 100)):
        sample = msgspec.structs.replace(
            gpu(utilisation=busy, temperature=celsius, power=99.6, sm_clock=None), score=score
        )
        history.add([sample], second * NS)
    assert history.tell().gpus[0].rings[0].points == ()  # the span is not over
    history.add([gpu()], 110 * NS)
    (point,) = history.tell().gpus[0].rings[0].points
    assert (point.at_s, point.utilisation, point.temperature, point.score) == (100, 30, 91, 40)
    assert (point.power, point.sm_clock) == (100, None)
    assert history.tell("GPU-0").gpus[0].uuid == "GPU-0"
    assert history.tell("GPU-9").gpus == ()


def test_it_stays_small_and_outlives_a_restart() -> None:
    history = History()
    for second in range(0, 3 * 86_400, 5):
        history.add([gpu()], second * NS)
    told = history.tell()
    assert [len(ring.points) for ring in told.gpus[0].rings] == [count for _step_s, count in RINGS]
    raw = msgspec.json.encode(told)
    assert len(raw) < 100_000
    assert History(msgspec.json.decode(raw, type=GpuHistory)).tell() == told
    for index in range(GPUS_MAX + 5):
        history.add([gpu(index)], 10**6 * NS)
    assert len(history.tell().gpus) == GPUS_MAX


# Questions.


async def test_a_question_is_answered_once_and_told_until_it_is_heard() -> None:
    asked: list[str] = []
    changed = asyncio.Event()

    async def answer(subject: str) -> bytes:
        asked.append(subject)
        return b'{"of":"' + subject.encode() + b'"}'

    question = Question(question_id="q1", kind="gpu_history", subject="GPU-0")
    async with asyncio.TaskGroup() as tasks:
        questions = Questions({"gpu_history": answer}, tasks, changed.set)
        questions.hear([question])
        await changed.wait()
        questions.hear([question])
        (told,) = questions.answers()
        assert (bytes(told.content), told.problem) == (b'{"of":"GPU-0"}', "")
        questions.hear([])
    assert questions.answers() == ()
    assert asked == ["GPU-0"]


async def test_what_cannot_be_answered_says_why() -> None:
    async def refuse(_subject: str) -> bytes:
        raise AgentError("There is no such GPU.")

    async def fail(_subject: str) -> bytes:
        raise OSError("the disk is gone")

    async def flood(_subject: str) -> bytes:
        return b"0" * (ANSWER_BYTES_MAX + 1)

    problems: dict[str, str] = {}
    for answerer in (refuse, fail, flood, None):
        answerers = {} if answerer is None else {"gpu_history": answerer}
        changed = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            questions = Questions(answerers, tasks, changed.set)
            questions.hear([Question(question_id="q", kind="gpu_history")])
            await changed.wait()
        problems[getattr(answerer, "__name__", "nobody")] = questions.answers()[0].problem
    assert problems["refuse"] == "There is no such GPU."
    assert "the disk is gone" in problems["fail"]
    assert "too large" in problems["flood"]
    assert "gpu_history" in problems["nobody"]


# Forgetting.


@pytest.fixture
def invocation(tmp_path: Path) -> Invocation:
    home = find_home(str(tmp_path))
    home.agent_state.mkdir(parents=True)
    write_message(
        home.agent_state / STATE_FILE,
        Remembered(
            boot_id="boot-1",
            gpus=tuple(
                KnownGpu(index=i, uuid=f"GPU-{i}", name="H100", bus_id="") for i in range(2)
            ),
            xids=(KnownXid(uuid="GPU-1", xid=79, first_ns=1, last_ns=1),),
        ),
    )
    return Invocation(home=home, json=False)


def test_a_gpu_is_forgotten_with_its_xids(invocation: Invocation) -> None:
    done = CliRunner().invoke(forget_gpu, ["GPU-1"], obj=invocation)
    assert done.exit_code == 0
    left = read_message(invocation.home.agent_state / STATE_FILE, Remembered)
    assert left is not None
    assert ([g.uuid for g in left.gpus], left.xids) == (["GPU-0"], ())


def test_an_unknown_gpu_and_a_running_agent_are_refused(invocation: Invocation) -> None:
    unknown = CliRunner().invoke(forget_gpu, ["GPU-7"], obj=invocation)
    assert isinstance(unknown.exception, CommandError)
    assert "GPU-0, GPU-1" in unknown.exception.next_step
    with held(invocation.home.agent_state / "agent.lock", 0.0):
        running = CliRunner().invoke(forget_gpu, ["GPU-1"], obj=invocation)
    assert isinstance(running.exception, CommandError)
    assert "The agent of this home runs" in str(running.exception)
