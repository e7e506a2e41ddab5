"""What an engine that is late, or never empty, or woken as it falls asleep, is taken for."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from msgspec import structs

from agent import attendant as attendants
from agent import host
from agent.attendant import Attendant
from agent.engines import probe
from agent.engines.kind import Address, Load
from agent.engines.kinds import known_kinds
from agent.engines.probe import Engine
from agent.engines.variables import PORT_VARIABLE
from agent.errors import EngineUnfit
from agent.events import Event, GaveToken, Idle, Listening, Slept, Spawned, Useless, Wanted
from agent.processes import Command, Process, Processes
from agent.seat import Seat
from agent.supervisor import Supervisor, Times
from appliance.wire.agent import DesiredReplica, EngineKind
from tests.fakes.clock import ManualClock
from tests.unit.agent.test_supervisor import MEASURED

REPLICA = DesiredReplica(
    replica_id="rep_1",
    deployment_id="dep_1",
    generation=1,
    engine="vllm",
    model_name="m",
    model_path="/m",
)

SGLANG = structs.replace(REPLICA, engine="sglang")


class FakeEngine(Engine):
    """Says what it is told to say, and notes what it is asked for."""

    def __init__(self) -> None:
        self.loads: list[int | None] = []  # requests; None: no answer; the last one for ever
        self.asked: list[str] = []
        self.falls_asleep = asyncio.Event()
        self.may_sleep = asyncio.Event()
        self.may_sleep.set()

    async def load(self) -> Load:
        requests = self.loads.pop(0) if len(self.loads) > 1 else self.loads[0]
        if requests is None:
            raise EngineUnfit("The engine gives no answer to /metrics within 3 s.")
        return Load(requests, (0.0,))

    async def sleep(self) -> None:
        self.falls_asleep.set()
        await self.may_sleep.wait()
        self.asked.append("sleep")

    async def wake(self) -> None:
        self.asked.append("wake")


class Ward:
    """A seat whose engine serves, and its attendant."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.now_s = 0.0
        self.fed: list[Event] = []
        self.engine = FakeEngine()
        self.seat = Seat(Supervisor("rep_1", "dep_1", Times()))

        async def told() -> None:
            """No appliance here."""

        self.attendant = Attendant(
            processes=Processes(folder / "engines", "boot"),
            kinds=known_kinds({}),
            session=session,
            clock=ManualClock(),
            still_s=15.0,
            feed=self.feed,
            told=told,
            gpu_memory=lambda _pids: None,
        )
        self.attendant.engine = lambda *_: self.engine  # type: ignore[method-assign]  # the wire is not what is tested
        for event in (
            Wanted(REPLICA),
            Spawned(1, 7, 1),
            Listening(1, "127.0.0.1", 1, None),
            GaveToken(1, MEASURED),
        ):
            self.feed(self.seat, event)

    def feed(self, seat: Seat, event: Event) -> None:
        self.fed.append(event)
        seat.machine.handle(event, self.now_s)

    async def sleep(self, *, asleep: bool) -> None:
        wanted = structs.replace(REPLICA, asleep=asleep)
        self.feed(self.seat, Wanted(wanted))
        await self.attendant.sleep(self.seat, 1, wanted, self.engine, asleep=asleep)


@pytest.fixture
async def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ward]:
    monkeypatch.setattr(attendants, "_DRAIN_POLL_S", 0.001)
    async with aiohttp.ClientSession() as session:
        yield Ward(tmp_path, session)


async def test_an_engine_is_found_though_its_environment_shows_only_in_a_moment(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = Processes(tmp_path / "engines", host.boot_id())
    script = "import time; time.sleep(60)"
    command = Command((sys.executable, "-c", script), {PORT_VARIABLE: "4711"})
    process = processes.spawn(REPLICA, command, 0)
    try:
        shown, real = [{}, {}, None], host.process_environ

        def environ(pid: int) -> dict[str, str]:
            told = shown.pop(0) if shown else None
            return real(pid) if told is None else told

        async def healthy() -> bool:
            return True

        monkeypatch.setattr(host, "process_environ", environ)
        monkeypatch.setattr(ward.engine, "healthy", healthy)
        ward.seat.process = process
        async with asyncio.timeout(10):
            await ward.attendant.find(ward.seat, 1, REPLICA)
        assert isinstance(ward.fed[-1], Listening)
        assert ward.fed[-1].port == 4711
    finally:
        process.end(kill=True)
        process.exit_code()


async def test_a_look_without_an_answer_ends_no_draining(ward: Ward) -> None:
    ward.engine.loads = [1, None, None, None, 1, None, 0, 0]
    await ward.attendant.drain(ward.seat, 1)
    assert ward.engine.loads == [0]
    assert ward.fed[-1] == Idle(1)


async def test_an_engine_that_says_nothing_more_is_not_drained_for_ever(ward: Ward) -> None:
    ward.engine.loads = [1, None]
    async with asyncio.timeout(5):
        await ward.attendant.drain(ward.seat, 1)
    assert ward.fed[-1] == Idle(1)


async def test_what_is_never_empty_stays_awake_and_it_is_said(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(attendants, "_NAP_S", 0.05)
    ward.engine.loads = [3]
    async with asyncio.timeout(5):
        await ward.sleep(asleep=True)
    assert ward.engine.asked == []
    assert not ward.seat.machine.report().asleep
    (said,) = [r for r in caplog.records if r.message == "engine stays awake"]
    assert vars(said)["why"] == "It had requests for 0.05 s."


async def test_a_waking_waits_for_the_falling_asleep_and_comes_last(ward: Ward) -> None:
    ward.engine.loads = [0]
    ward.engine.may_sleep.clear()
    falling = asyncio.create_task(ward.sleep(asleep=True))
    await ward.engine.falls_asleep.wait()
    waking = asyncio.create_task(ward.sleep(asleep=False))
    for _ in range(20):
        await asyncio.sleep(0)
    assert ward.engine.asked == []  # not before it sleeps: a waking that is overtaken is none
    ward.engine.may_sleep.set()
    await asyncio.gather(falling, waking)
    assert ward.engine.asked == ["sleep", "wake"]
    assert [e for e in ward.fed if isinstance(e, Slept)] == [Slept(1, True), Slept(1, False)]
    assert not ward.seat.machine.report().asleep


async def test_a_sleep_that_was_taken_back_while_requests_ran_is_none(ward: Ward) -> None:
    ward.engine.loads = [1]
    falling = asyncio.create_task(ward.sleep(asleep=True))
    await asyncio.sleep(0.01)
    await ward.sleep(asleep=False)
    ward.engine.loads = [0]
    await falling
    assert ward.engine.asked == ["wake"]


async def test_properties_that_come_late_cost_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a node with more work than cores an engine that just gave tokens answers late."""
    monkeypatch.setattr(probe, "_WATCH_S", 0.1)

    async def properties(_: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.json_response({"data": [{"id": "m", "max_model_len": 64}]})

    async def chat(_: web.Request) -> web.Response:
        return web.json_response({"usage": {"prompt_tokens": 9, "completion_tokens": 16}})

    app = web.Application()
    app.router.add_get("/v1/models", properties)
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession() as session:
            kind = known_kinds({})["vllm"]
            engine = Engine(session, kind, REPLICA, Address("127.0.0.1", port), None)
            assert (await engine.warm_up(0.2)).context_tokens == 64
    finally:
        await runner.cleanup()


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Process]:
    """A front process that does not care for the one behind it, as SGLang's was seen to."""
    processes = Processes(tmp_path / "engines", host.boot_id())
    script = (
        "import subprocess, time\n"
        "subprocess.Popen(['sglang::scheduler_TP0', '60'], executable='/bin/sleep')\n"
        "subprocess.Popen(['compiles', '60'], executable='/bin/sleep')\n"
        "time.sleep(60)\n"
    )
    command = Command((sys.executable, "-c", script), {})
    process = processes.spawn(SGLANG, command, 0)
    yield process
    process.end(kill=True)
    process.exit_code()
    processes.forget(process)


def titled(process: Process, title: str) -> int | None:
    found = [pid for pid in process.family() if host.process_title(pid).startswith(title)]
    return found[0] if found else None


async def test_a_front_whose_scheduler_has_died_is_found_out(
    ward: Ward, behind: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers, and its figures say that nobody waits: they are those of before."""
    monkeypatch.setattr(attendants, "_WATCH_S", 0.05)
    ward.engine.loads = [0]
    ward.seat.process = behind
    async with asyncio.timeout(10):
        while None in (titled(behind, "sglang::"), titled(behind, "compiles")):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    watching = asyncio.create_task(ward.attendant.watch(ward.seat, 1, SGLANG, ward.engine))
    await asyncio.sleep(0.3)
    compiler, scheduler = titled(behind, "compiles"), titled(behind, "sglang::")
    assert compiler is not None
    assert scheduler is not None
    os.kill(compiler, signal.SIGKILL)  # such come and go
    await asyncio.sleep(0.3)
    assert not watching.done()
    os.kill(scheduler, signal.SIGKILL)
    async with asyncio.timeout(5):
        await watching
    last = ward.fed[-1]
    assert isinstance(last, Useless)
    assert last.reason == (
        f"The engine's process 'sglang::scheduler_TP0' ({scheduler}) has ended, and its front"
        " lives on."
    )


async def test_a_scheduler_whose_front_has_died_is_ended_with_it(
    tmp_path: Path, behind: Process
) -> None:
    async with asyncio.timeout(10):
        while titled(behind, "sglang::") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    scheduler = titled(behind, "sglang::")
    assert scheduler is not None
    os.kill(behind.pid, signal.SIGKILL)
    behind.exit_code()
    assert host.process_stat(scheduler) is not None  # an orphan that keeps its GPU memory
    Processes(tmp_path / "engines", host.boot_id()).forget(behind)
    async with asyncio.timeout(5):
        while (stat := host.process_stat(scheduler)) is not None and stat.state != "Z":  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", ["llamacpp", "vllm", "sglang"])
def test_how_an_adopted_engine_ended_is_not_made_up(name: EngineKind) -> None:
    reason, lasting = known_kinds({})[name].end_reason(None, ())
    assert "Exit code unknown: adopted" in reason
    assert not lasting
