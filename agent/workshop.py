"""What is done for one replica that waits for the disk, or for the kernel: in threads, never on the
event loop. Errands of one replica come one after the other.
"""

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from agent import dumps, host
from agent.engines.kind import Kinds, Room
from agent.engines.kinds import unknown
from agent.processes import Process, Processes
from appliance.wire.agent import DesiredReplica
from appliance.wire.engine_arguments import LOOPBACK

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hopeless:
    """A start that cannot work, and what would have to change."""

    problem: str
    fingerprint: object


class Workshop:
    """Blocks: called in a replica's own thread."""

    __slots__ = ("_cores", "_kinds", "_processes")

    def __init__(self, processes: Processes, kinds: Kinds, cores: int) -> None:
        self._processes = processes
        self._kinds = kinds
        self._cores = cores

    def start(self, replica: DesiredReplica, restarts: int, sharing: int) -> Process | Hopeless:
        """`sharing`: so many replicas share the cores. Raises OSError; then nothing runs."""
        kind = self._kinds.get(replica.engine)
        problem = unknown(replica.engine) if kind is None else kind.hopeless(replica)
        if kind is None or problem is not None:
            return Hopeless(problem or "", self.fingerprint(replica))
        folder, cache = self._processes.room(replica.replica_id)
        room = Room(
            cores=self._cores,
            replicas=sharing,
            port=host.free_port(LOOPBACK),
            api_key=secrets.token_urlsafe(24),
            folder=folder,
            cache=cache,
        )
        return self._processes.spawn(replica, kind.command(replica, room), restarts)

    def fingerprint(self, replica: DesiredReplica) -> object:
        """Changes when something does that may give a hopeless start hope."""
        kind = self._kinds.get(replica.engine)
        return None if kind is None else kind.fingerprint(replica)

    def dump(self, process: Process, reason: str, at_ns: int) -> None:
        """Write down what an engine looks like that is to be ended."""
        replica_id = process.record.replica.replica_id
        try:
            tail = self._processes.log_tail(replica_id)
            dump = dumps.take(replica_id, process.pid, process.family(), reason, tail, at_ns)
            self._processes.keep_dump(dump)
        except OSError as error:
            log.warning("dump not kept", extra={"replica_id": replica_id, "why": error.strerror})
            return
        log.warning(
            "engine dumped",
            extra={"replica_id": replica_id, "pid": process.pid, "reason": reason},
        )

    def tidy_up(self, process: Process) -> tuple[Sequence[str], object]:
        """After its end: the run's last lines, and the fingerprint of what was started."""
        replica = process.record.replica
        tail: Sequence[str] = ()
        try:
            self._processes.forget(process)
            tail = self._processes.log_tail(replica.replica_id)
        except OSError as error:
            log.warning("ended engine not tidied up", extra={"why": str(error)})
        return tail, self.fingerprint(replica)

    def examine(self, replica_id: str, replica: DesiredReplica | None) -> object:
        """Keep its log in bounds. The fingerprint of `replica`, where one is asked for."""
        self._processes.bound_log(replica_id)
        return None if replica is None else self.fingerprint(replica)
