"""The agent's conversation with the appliance: hello, then heartbeats, for ever.

The engines do not depend on it. When nobody answers, the agent goes on with what it was told last
and asks again, at ever longer intervals.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

import aiohttp
import msgspec

from agent.errors import ApplianceAway, ApplianceRefused, IdentityBroken
from agent.ways import Way
from appliance.wire.agent import (
    Answer,
    Desired,
    EngineCount,
    Heartbeat,
    Hello,
    PreemptionNotice,
    Question,
    Refusal,
    ReplicaReport,
    Welcome,
)
from appliance.wire.gpu import Driver, Gpu, NodeHealth

log = logging.getLogger(__name__)

M = TypeVar("M")
Reports = Callable[[], Sequence[ReplicaReport]]
Counts = Callable[[], Sequence[EngineCount]]
Notice = Callable[[], PreemptionNotice | None]
Wanted = Callable[[Desired], None]

_DEADLINE_S: Final = 5.0
_RETRY_S_MIN: Final = 0.1
_RETRY_S_MAX: Final = 2.0
_REFUSED_RETRY_S: Final = 5.0
# Changes often come in pairs; one message can carry both.
_SETTLE_S: Final = 0.02


class GpuFacts(Protocol):
    """What is known of the node's GPUs. `health` None: nothing yet."""

    gpus: tuple[Gpu, ...]
    driver: Driver
    health: NodeHealth | None


class HoldsModels(Protocol):
    """The node's own store of models."""

    def digests(self) -> tuple[str, ...]: ...


class AnswersQuestions(Protocol):
    """Hears what is asked with every heartbeat, and has the answers for the next."""

    def hear(self, questions: Sequence[Question]) -> None: ...

    def answers(self) -> tuple[Answer, ...]: ...


class Link:
    """Reports what is, hears what shall be. One connection, kept while it lasts."""

    def __init__(self, way: Way, hello: Hello) -> None:
        self._way = way
        self._hello = hello
        self.door_port: Callable[[], int | None] = lambda: None
        self.wall_ns: Callable[[], int] = time.time_ns
        self.notice: Notice = lambda: None  # whether this machine will be taken away
        self.gpus: GpuFacts | None = None
        self.questions: AnswersQuestions | None = None
        self.models: HoldsModels | None = None
        self._news = asyncio.Event()
        self._round = 0  # of the heartbeat that is being made
        self._answered = 0  # the last round that was answered
        self._told = asyncio.Condition()
        self._there: bool | None = None
        self._again = False  # begin anew, with another connection

    def reconnect(self) -> None:
        """This node has another certificate: show it."""
        self._again = True
        self._news.set()

    def changed(self) -> None:
        """A report differs: say so soon."""
        self._news.set()

    async def told(self) -> None:
        """Returns when a heartbeat that began after this call has been answered."""
        wanted_round = self._round + 1
        self._news.set()
        async with self._told:
            await self._told.wait_for(lambda: self._answered >= wanted_round)

    async def run(self, reports: Reports, wanted: Wanted, counts: Counts = tuple) -> None:
        """Talk until cancelled: tell what `reports` and `counts` give, hand on what is wanted."""
        retry_s = _RETRY_S_MIN
        while True:
            try:
                self._again = False
                async with aiohttp.ClientSession(
                    connector=self._way.connector(),
                    timeout=aiohttp.ClientTimeout(total=_DEADLINE_S),
                ) as session:
                    welcome = await self._post(session, "hello", self._hello, Welcome)
                    self._note(there=True, why="")
                    retry_s = _RETRY_S_MIN
                    await self._talk(session, welcome, reports, wanted, counts)
            except ApplianceRefused as error:
                self._note(there=False, why=str(error))
                unknown = error.refusal == "unknown_node"  # it is new: introduce ourselves
                await asyncio.sleep(_RETRY_S_MIN if unknown else _REFUSED_RETRY_S)
            except (ApplianceAway, IdentityBroken, FileNotFoundError) as error:
                self._note(there=False, why=str(error))
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, _RETRY_S_MAX)

    async def _talk(
        self,
        session: aiohttp.ClientSession,
        welcome: Welcome,
        reports: Reports,
        wanted: Wanted,
        counts: Counts,
    ) -> None:
        while not self._again:
            self._news.clear()
            self._round += 1
            gpus = self.gpus if self.gpus is not None and self.gpus.health is not None else None
            heartbeat = Heartbeat(
                node_id=welcome.node_id,
                replicas=tuple(reports()),
                counts=tuple(counts()),
                notice=self.notice(),
                door_port=self.door_port(),
                gpus=gpus.gpus if gpus else (),
                driver=gpus.driver if gpus else None,
                health=gpus.health if gpus else None,
                answers=self.questions.answers() if self.questions else (),
                models=self.models.digests() if self.models else (),
                sent_ns=self.wall_ns(),
            )
            desired = await self._post(session, "heartbeat", heartbeat, Desired)
            async with self._told:
                self._answered = self._round
                self._told.notify_all()
            wanted(desired)
            if self.questions is not None:
                self.questions.hear(desired.questions)
            try:
                # Not `wait_for`: before Python 3.12 it loses a cancellation that meets the news.
                async with asyncio.timeout(welcome.heartbeat_s):
                    await self._news.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(_SETTLE_S)

    async def _post(
        self, session: aiohttp.ClientSession, name: str, message: msgspec.Struct, answer: type[M]
    ) -> M:
        """Raises ApplianceAway, ApplianceRefused."""
        try:
            async with session.post(
                self._way.base + name,
                data=msgspec.json.encode(message),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
                server_hostname=self._way.server_name,
            ) as response:
                self._way.met()
                content = await response.read()
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApplianceAway(f"The appliance does not answer: {error or 'too late'}.") from error
        try:
            if status == 200:
                return msgspec.json.decode(content, type=answer)
            refusal = msgspec.json.decode(content, type=Refusal)
        except msgspec.DecodeError as error:
            raise ApplianceAway(f"The appliance answers {status} without sense.") from error
        raise ApplianceRefused(refusal.code, refusal.message)

    def _note(self, *, there: bool, why: str) -> None:
        if there == self._there:
            return
        self._there = there
        if there:
            log.info("appliance answers", extra={"node": self._hello.node_name})
        else:
            log.warning("appliance away", extra={"why": why})
