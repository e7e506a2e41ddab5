"""What goes into a replica's machine and what comes out: events and effects.

`launch` numbers the processes of one replica; an event of an older launch is ignored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.wire.agent import DesiredReplica


@dataclass(frozen=True, slots=True)
class Measured:
    """What the readiness requests told of the engine."""

    slots: int | None
    context_tokens: int | None
    tokens_per_s: float | None
    prompt_tokens_per_byte: float | None
    prefill_tokens_per_s: float | None = None
    gpu_memory_bytes: int | None = None  # of all its GPUs
    loaded_s: float | None = None  # from the spawn to the first token


# Events.


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall run; None: nothing. `drain_s`: for what runs instead; None: the usual time."""

    replica: DesiredReplica | None
    drain_s: float | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """Where an adopted process was found fit to serve, and how well."""

    host: str
    port: int
    api_key: str | None
    measured: Measured


@dataclass(frozen=True, slots=True)
class Adopted:
    """A process of an earlier agent was found running. Only ever the first event.

    `served` not None: it was ready then, and it is ready now: asking it for a token again would
    take it out of service for as long as its queue is.
    """

    replica: DesiredReplica
    pid: int
    started_ns: int
    restarts: int
    served: Served | None


@dataclass(frozen=True, slots=True)
class Spawned:
    launch: int
    pid: int
    started_ns: int  # wall clock


@dataclass(frozen=True, slots=True)
class Listening:
    """The engine has loaded its model and answers at this address."""

    launch: int
    host: str
    port: int
    api_key: str | None


@dataclass(frozen=True, slots=True)
class GaveToken:
    """The engine did real work."""

    launch: int
    measured: Measured


@dataclass(frozen=True, slots=True)
class Useless:
    """The process runs and is of no use: no token, or no progress."""

    launch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What is seen of it while it serves differs from what was known."""

    launch: int
    tokens_per_s: float | None
    prefill_tokens_per_s: float | None
    gpu_memory_bytes: int | None = None  # None: as before


@dataclass(frozen=True, slots=True)
class Slept:
    """The engine has given its memory back, or has it again."""

    launch: int
    asleep: bool


@dataclass(frozen=True, slots=True)
class Idle:
    """No request runs on the engine any more."""

    launch: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The process is gone, or could not be started.

    `lasting`: it would end the same way again. `outside`: somebody else ended it, by all we know.
    """

    launch: int
    reason: str
    lasting: bool = False
    outside: bool = False


@dataclass(frozen=True, slots=True)
class CauseChanged:
    """What made a start hopeless may have changed: the model's file is another one now."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


# Of one launch: heeded while its process is the present one.
OfProcess = Spawned | Listening | GaveToken | Useless | Refreshed | Slept | Idle | Exited
Event = Wanted | Adopted | CauseChanged | Tick | OfProcess


# Effects.


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process; answer with Spawned and Listening, or Exited."""

    launch: int
    replica: DesiredReplica


@dataclass(frozen=True, slots=True)
class Find:
    """Learn the address of an adopted process; answer with Listening or Useless."""

    launch: int
    replica: DesiredReplica


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask for real tokens; answer with GaveToken or Useless."""

    launch: int
    replica: DesiredReplica
    host: str
    port: int
    api_key: str | None


@dataclass(frozen=True, slots=True)
class Watch:
    """See that the engine makes progress; answer with Useless when it does not."""

    launch: int
    replica: DesiredReplica
    host: str
    port: int
    api_key: str | None


@dataclass(frozen=True, slots=True)
class Sleep:
    """Have it give its memory back once nothing runs, or wake it; answer with Slept."""

    launch: int
    replica: DesiredReplica
    asleep: bool
    host: str
    port: int
    api_key: str | None


@dataclass(frozen=True, slots=True)
class Dump:
    """Write down what the process looks like, before it is ended for `reason`."""

    launch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Answer with Idle when no request runs any more."""

    launch: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the process group to end."""

    launch: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End the process group."""

    launch: int


@dataclass(frozen=True, slots=True)
class Report:
    """Something the appliance sees has changed."""


Effect = Spawn | Find | Probe | Watch | Sleep | Dump | Drain | Terminate | Kill | Report
Effects = Sequence[Effect]
