"""What a node that joined a site has beyond one on the appliance's own host."""

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from agent.doors import Doors, NodePapers
from agent.errors import IdentityBroken
from agent.identity import Identity
from agent.link import Link
from agent.model_source import ModelSource, Server
from agent.renewal import Renewal
from agent.shelf import Shelf
from agent.ways import NodeWay, address_of, node_context
from appliance.domain.clock import Clock
from appliance.domain.tls_names import APPLIANCE_NAME
from appliance.wire.agent import DesiredReplica, ReplicaReport
from appliance.wire.model_store import ModelStore

STORE: Final = "models"  # in the agent's folder


class Abroad:
    """A way to the appliance over mutual TLS, a door for it to come in, papers that stay new, and
    models of its own.
    """

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
        self.shelf = Shelf(
            ModelStore(state / STORE),
            ModelSource(self._server),
            clock,
            ready=self._model_came,
            changed=self._door_changed,
        )
        self.want: Callable[[Sequence[DesiredReplica]], None] = lambda _replicas: None

    def begin(self, link: Link, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Keep the door and the papers; the tasks run until they are cancelled."""
        self._changed = link.changed
        link.door_port = lambda: self.doors.port
        link.models = self.shelf
        renewal = Renewal(self._identity, self._clock, random.random, link.reconnect)
        kept = (self.doors.run(), renewal.run(), self.shelf.run())
        return [tasks.create_task(one) for one in kept]

    def leads(
        self, reports: Callable[[], Sequence[ReplicaReport]]
    ) -> Callable[[], Sequence[ReplicaReport]]:
        """The same reports, told once the door leads to their engines, and of those that wait."""
        return lambda: (*self.doors.lead(reports()), *self.shelf.reports())

    def _door_changed(self) -> None:
        self._changed()

    def _model_came(self) -> None:
        self.want(self.shelf.runnable())

    def _server(self) -> Server | None:
        """Where models come from, with the newest papers."""
        try:
            host, port = address_of(self._identity.about.server)
            return Server(host, port, APPLIANCE_NAME, node_context(self._identity))
        except (IdentityBroken, ValueError):
            return None  # the link says why

    async def end(self, *, keep: bool) -> None:
        if keep:
            self.doors.release()
        else:
            await self.doors.stop()
