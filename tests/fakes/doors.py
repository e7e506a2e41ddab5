"""Doors of nodes in this process, with certificates of the tests' own CA."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.door import PLAN_FILE, Door, Papers, Plan, Route
from agent.durable import write_message
from appliance.domain.ids import NodeId, ReplicaId
from appliance.domain.tls_names import replica_name
from tests.fakes.certificates import Authority


@asynccontextmanager
async def open_door(
    folder: Path,
    authority: Authority,
    node_id: NodeId,
    engines: dict[ReplicaId, int],
    *,
    as_node: NodeId | None = None,
) -> AsyncIterator[int]:
    """The port of a door that leads to these engines. `as_node`: whose certificate it shows."""
    file = authority.node(as_node or node_id).file
    folder.mkdir()  # noqa: ASYNC240 - once, on a local disk
    routes = {
        replica_name(replica_id, node_id): Route(host="127.0.0.1", port=port)
        for replica_id, port in engines.items()
    }
    plan = Plan(
        address="127.0.0.1",
        port=None,
        certificate_file=str(file),
        key_file=str(file),
        ca_file=str(authority.file),
        routes=routes,
    )
    write_message(folder / PLAN_FILE, plan)
    door = Door(folder, Papers(folder))
    port = door.open().port
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(door.run())
        yield port
        door.close()
        async with asyncio.timeout(10):  # its guests have left, or are about to
            await running
