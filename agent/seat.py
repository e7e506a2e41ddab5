"""One replica at this node: its machine, its process and what is being done for it."""

import asyncio

from msgspec import structs

from agent import host
from agent.engines.kind import Load
from agent.engines.variables import api_key_of
from agent.errands import Errands
from agent.events import Measured, Served
from agent.output_rate import OutputRate
from agent.phases import Phase
from agent.processes import Process
from agent.supervisor import Supervisor
from appliance.wire.agent import EngineCount, ReplicaReport


class Seat:
    """What the shell keeps for one replica."""

    __slots__ = (
        "caveat",
        "count",
        "errands",
        "fingerprint",
        "logged",
        "look",
        "machine",
        "process",
        "rate",
        "switching",
        "tasks",
    )

    def __init__(self, machine: Supervisor) -> None:
        self.machine = machine
        self.errands = Errands(machine.report().replica_id)  # what may wait for a disk
        self.process: Process | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.look: asyncio.Task[None] | None = None  # at its files, under way or done
        self.switching = asyncio.Lock()  # held while it falls asleep or wakes
        self.logged = Phase.PENDING  # the phase the log has
        self.caveat = ""  # of the process that serves
        self.count: EngineCount | None = None  # as the engine told it last
        self.rate = OutputRate()
        self.fingerprint: object = None  # of what made a start hopeless

    def report(self, version: str | None) -> ReplicaReport:
        """The replica as the appliance is told of it; `version` is its engine's, here."""
        report = self.machine.report()
        if self.process is None:
            return report
        command = self.process.record.command
        reason = report.reason or (self.caveat if report.state == "ready" else "")
        return structs.replace(report, command=command, engine_version=version, reason=reason)

    def note(self, load: Load, now_s: float) -> None:
        """Remember what the engine says it counted, and does. `now_s`: monotonic."""
        report = self.machine.report()
        if report.pid is not None and report.started_ns is not None:
            self.rate.look(load.generated_tokens, now_s)
            self.count = EngineCount(
                replica_id=report.replica_id,
                incarnation=f"{report.started_ns}-{report.pid}",
                prompt_tokens=load.prompt_tokens,
                generated_tokens=load.generated_tokens,
                running=max(0, load.requests - load.waiting),
                waiting=load.waiting,
                cache_used=load.cache_used,
                tokens_per_s=self.rate.per_s,
            )

    def told(self) -> EngineCount | None:
        """What it counted last; what it did, only while there is a process that does it."""
        if self.count is None or self.process is not None:
            return self.count
        return structs.replace(
            self.count, running=None, waiting=None, cache_used=None, tokens_per_s=None
        )


def served(process: Process) -> Served | None:
    """Where an adopted process served, and how well; None: it was never ready."""
    fitness = process.record.fitness
    if fitness is None:
        return None
    return Served(
        fitness.host,
        fitness.port,
        api_key_of(host.process_environ(process.pid)),
        Measured(
            fitness.slots,
            fitness.context_tokens,
            fitness.tokens_per_s,
            fitness.prompt_tokens_per_byte,
            fitness.prefill_tokens_per_s,
            fitness.gpu_memory_bytes,
            fitness.loaded_s,
        ),
    )
