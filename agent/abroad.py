"""What a node that joined a site has beyond one on the appliance's own host."""

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.doors import Doors, NodePapers
from agent.identity import Identity
from agent.link import Link
from agent.renewal import Renewal
from agent.ways import NodeWay
from appliance.domain.clock import Clock
from appliance.wire.agent import ReplicaReport


class Abroad:
    """A way to the appliance over mutual TLS, a door for it to come in, papers that stay new."""

    def __init__(self, identity: Identity, state: Path, boot_id: str, clock: Clock) -> None:
        self._identity = identity
        self._clock = clock
        self._changed: Callable[[], None] = lambda: None
        self.doors = Doors(
            folder=state / "door",
            papers=NodePapers(
                node_id=identity.node_id,
                certificate_file=identity.papers_file,
                key_file=identity.papers_file,
                ca_file=identity.ca_file,
            ),
            boot_id=boot_id,
            clock=clock,
            changed=self._door_changed,
        )
        self.way = NodeWay(identity, self.doors.speaks_from)

    def begin(self, link: Link, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Keep the door and the papers; the tasks run until they are cancelled."""
        self._changed = link.changed
        link.door_port = lambda: self.doors.port
        renewal = Renewal(self._identity, self._clock, random.random, link.reconnect)
        return [tasks.create_task(self.doors.run()), tasks.create_task(renewal.run())]

    def leads(
        self, reports: Callable[[], Sequence[ReplicaReport]]
    ) -> Callable[[], Sequence[ReplicaReport]]:
        """The same reports, told once the door leads to their engines."""
        return lambda: self.doors.lead(reports())

    def _door_changed(self) -> None:
        self._changed()

    async def end(self, *, keep: bool) -> None:
        if keep:
            self.doors.release()
        else:
            await self.doors.stop()
