"""SkyPilot, asked one question at a time in a process of its own.

It lives in an interpreter that may be another one, prints, blocks and imports for seconds: none of
that belongs into a gateway. Nothing is asked unless there is a burst, or somebody plans one.
"""

import asyncio
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from appliance.fleet.errors import CloudRefused, CloudUnavailable
from appliance.registry.bursts import Offer

log = logging.getLogger(__name__)

M = TypeVar("M", bound=msgspec.Struct)

PROGRAM: Final = Path(__file__).with_name("sky_process.py")
DEADLINE_S: Final = 120.0
_ANSWER_BYTES_MAX: Final = 32 * 1024 * 1024
# What SkyPilot raises when it is not there, or no cloud is.
_ABSENT: Final = frozenset({"ModuleNotFoundError", "ImportError"})


class Taken(msgspec.Struct, frozen=True):
    """A machine that SkyPilot took. `price_micro` None: its catalogue has it no more."""

    cloud: str
    region: str
    instance_type: str
    gpu: str
    gpus: int
    spot: bool
    price_micro: int | None


class Cluster(msgspec.Struct, frozen=True):
    name: str
    state: str  # init, up, stopped
    resources: Taken | None


class Request(msgspec.Struct, frozen=True):
    state: str  # pending, running, succeeded, failed, cancelled
    message: str = ""


class Sight(msgspec.Struct, frozen=True):
    """All clusters, and the requests that were asked about."""

    clusters: list[Cluster]
    requests: dict[str, Request]


class _Offers(msgspec.Struct):
    offers: list[Offer]


class _Chosen(msgspec.Struct):
    chosen: Taken


class _Asked(msgspec.Struct):
    request: str


class _Failed(msgspec.Struct):
    error: str
    message: str


class Clouds(Protocol):
    """What bursts ask of SkyPilot. Everything raises CloudUnavailable, CloudRefused."""

    async def offers(self, gpu: str, gpus: int, clouds: Sequence[str]) -> Sequence[Offer]: ...

    async def choose(self, task: Mapping[str, Any]) -> Taken: ...

    async def launch(self, task: Mapping[str, Any], cluster: str) -> str: ...

    async def down(self, cluster: str) -> str: ...

    async def look(self, requests: Sequence[str]) -> Sight: ...


class SkyPilot:
    """Clouds, through `sky_process`."""

    def __init__(self, python: str, environ: Mapping[str, str], *, program: Path = PROGRAM) -> None:
        """`python`: the interpreter that has SkyPilot. `environ`: with the clouds' credentials."""
        self._command = (python, "-I", str(program))
        self._environ = {**environ, "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}

    async def offers(self, gpu: str, gpus: int, clouds: Sequence[str]) -> Sequence[Offer]:
        """Every price in the catalogue; no clouds named: those whose accounts are known."""
        question = {"do": "offers", "gpu": gpu, "gpus": gpus, "clouds": list(clouds)}
        return (await self._ask(question, _Offers)).offers

    async def choose(self, task: Mapping[str, Any]) -> Taken:
        """What the optimiser takes of a task's candidates."""
        return (await self._ask({"do": "choose", "task": task}, _Chosen)).chosen

    async def launch(self, task: Mapping[str, Any], cluster: str, *, dry: bool = False) -> str:
        """Begin to launch; the request to ask about."""
        question = {"do": "launch", "task": task, "cluster": cluster, "dry": dry}
        return (await self._ask(question, _Asked)).request

    async def down(self, cluster: str) -> str:
        """Begin to take down; the request to ask about."""
        return (await self._ask({"do": "down", "cluster": cluster}, _Asked)).request

    async def look(self, requests: Sequence[str]) -> Sight:
        return await self._ask({"do": "look", "requests": list(requests)}, Sight)

    async def _ask(self, question: Mapping[str, Any], answer: type[M]) -> M:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=self._environ,
                limit=_ANSWER_BYTES_MAX,
                start_new_session=True,
            )
        except OSError as error:
            raise _unavailable(f"{self._command[0]} cannot be run: {error.strerror}") from error
        try:
            async with asyncio.timeout(DEADLINE_S):
                content, _ = await process.communicate(json.dumps(question).encode())
        except TimeoutError as error:
            raise CloudUnavailable(
                f"SkyPilot did not answer within {DEADLINE_S:g} s.",
                next_step="Look at its own log: ~/.sky/api_server/server.log.",
            ) from error
        finally:
            if process.returncode is None:
                os.killpg(process.pid, 9)
                await process.wait()
        return _read(content, process.returncode or 0, answer)


def _read(content: bytes, exit_code: int, answer: type[M]) -> M:
    try:
        return msgspec.json.decode(content, type=answer)
    except msgspec.DecodeError:
        pass
    try:
        failed = msgspec.json.decode(content, type=_Failed)
    except msgspec.DecodeError as error:
        raise _unavailable(f"its process ended with {exit_code} and no answer") from error
    if failed.error in _ABSENT:
        raise _unavailable(failed.message)
    raise CloudRefused(f"SkyPilot says {failed.error}: {failed.message}")


def _unavailable(why: str) -> CloudUnavailable:
    return CloudUnavailable(
        f"SkyPilot cannot be asked: {why}.",
        next_step="Install it (`pip install 'crosslogic-appliance[burst]'`), or name the"
        " interpreter that has it with burst.python.",
    )
