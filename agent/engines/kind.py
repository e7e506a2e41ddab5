"""What the agent must know of one kind of engine, and the words it uses for it.

A kind is pure knowledge: command lines, what answers and exits mean. Processes, sockets and time
belong to the agent. Adding an engine is adding a kind to `kinds.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.processes import Command
from appliance.wire.agent import DesiredReplica, EngineKind


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Room:
    """What this node gives one launch."""

    cores: int
    replicas: int  # that share the cores
    port: int  # a free one of the loopback address, for engines that must be told
    api_key: str = field(repr=False)
    folder: Path  # of this replica alone, for files its engine reads; private, may not exist yet
    cache: Path  # what engines compile and keep between launches; private, may not exist yet


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine does now. `progress` changes whenever it works."""

    requests: int  # running and waiting
    progress: tuple[float, ...]
    prompt_tokens: int = 0  # since its start, cached ones included
    generated_tokens: int = 0
    waiting: int = 0  # of `requests`
    cache_used: float | None = None  # 0–1 of the KV cache; None: the engine does not tell
    asleep: bool = False
    # Prompt tokens worked through, without those out of a cache, and the seconds they took.
    prefill: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Properties:
    """What an engine says it can do; None: it does not say."""

    slots: int | None
    context_tokens: int | None  # of one request


class Kind(Protocol):
    """One kind of engine on this node."""

    @property
    def name(self) -> EngineKind: ...

    @property
    def health_path(self) -> str:
        """GET it: 200 once the engine takes requests. It says nothing of one that hangs."""

    @property
    def properties_path(self) -> str:
        """GET it for the JSON that `properties` reads."""

    @property
    def load_path(self) -> str | None:
        """GET it for `{"server_load": N}`: requests its front has taken in, which it knows though
        the engine behind it hangs and moves no figure any more. None: there is no such thing.
        """

    @property
    def sleep_path(self) -> str | None:
        """POST it, and the engine gives its GPU memory back. None: it cannot sleep."""

    @property
    def wake_path(self) -> str | None:
        """POST it, and a sleeping engine serves again."""

    @property
    def members(self) -> tuple[str, ...]:
        """How the command lines of processes begin without which it serves nothing, where the one
        in front may live on without noticing. Empty: it notices, or there is only one.
        """

    @property
    def probe_fields(self) -> Mapping[str, Any]:
        """Fields our own requests carry beside OpenAI's, so that a cache does not flatter them."""

    def version(self) -> str | None:
        """As installed; None: it is not. May take seconds: never on the event loop."""

    def hopeless(self, replica: DesiredReplica) -> str | None:
        """Why a start cannot work, with the next step; None: it may."""

    def fingerprint(self, replica: DesiredReplica) -> object:
        """Changes when something does that may give a hopeless start hope. Cheap."""

    def command(self, replica: DesiredReplica, room: Room) -> Command:
        """What is run, with nothing secret among the arguments."""

    def end_reason(self, exit_code: int | None, log_tail: Sequence[str]) -> tuple[str, bool]:
        """Why the process ended, for a person, and whether it would end the same way again."""

    def load(self, metrics: str) -> Load:
        """Read /metrics. Raises EngineUnfit when the figures make no sense."""

    def properties(self, answer: Mapping[str, Any]) -> Properties:
        """Read the answer of `properties_path`."""


Kinds = Mapping[EngineKind, Kind]
