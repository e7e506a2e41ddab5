"""What the engines of a deployment wrote, and what was kept of those that hung: asked of nodes."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

import msgspec

from appliance.admin.calls import Call, Route, Services
from appliance.admin.errors import BadNodeAnswer, BadRequest, NodeAway
from appliance.domain.clock import iso
from appliance.domain.errors import CrossLogicError
from appliance.domain.ids import NodeId
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.engines import Engine
from appliance.wire.agent import QuestionKind
from appliance.wire.engine_traces import LOG_LINES_MAX, Dump, ReplicaDump, ReplicaLog

T = TypeVar("T")
_ASKED_AT_ONCE: Final = 4  # answers of one heartbeat: they are bounded together
_LOG: Final[msgspec.json.Decoder[list[str]]] = msgspec.json.Decoder(list[str])
_DUMP: Final[msgspec.json.Decoder[Dump | None]] = msgspec.json.Decoder(Dump | None)


class OfReplica(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One replica by its id, or all."""

    replica: str = ""


class LogTail(OfReplica, frozen=True, forbid_unknown_fields=True):
    lines: Annotated[int, msgspec.Meta(ge=1, le=LOG_LINES_MAX)] = LOG_LINES_MAX


@dataclass(frozen=True, slots=True)
class _Process:
    """A replica has one on every node it spans."""

    replica: str
    node_id: NodeId
    node: str


async def deployment_logs(services: Services, call: Call[LogTail, None]) -> list[ReplicaLog]:
    """Of each process of its replicas, without what may quote a request."""
    processes = await _processes(services, call.ref, call.query.replica)
    answers = await _ask_all(services, processes, "engine_log", _LOG.decode)
    return [
        ReplicaLog(
            replica=process.replica,
            node=process.node,
            lines=[] if isinstance(found, CrossLogicError) else found[-call.query.lines :],
            problem=found.message if isinstance(found, CrossLogicError) else "",
        )
        for process, found in zip(processes, answers, strict=True)
    ]


async def deployment_dumps(services: Services, call: Call[OfReplica, None]) -> list[ReplicaDump]:
    """Of each process of its replicas, the latest that was taken."""
    processes = await _processes(services, call.ref, call.query.replica)
    answers = await _ask_all(services, processes, "engine_dump", _DUMP.decode)
    return [_dump(process, found) for process, found in zip(processes, answers, strict=True)]


def _dump(process: _Process, found: Dump | CrossLogicError | None) -> ReplicaDump:
    dump = None if isinstance(found, CrossLogicError) else found
    return ReplicaDump(
        replica=process.replica,
        node=process.node,
        at=None if dump is None else iso(dump.at_ns),
        dump=dump,
        problem=found.message if isinstance(found, CrossLogicError) else "",
    )


async def _processes(services: Services, ref: str, replica: str) -> Sequence[_Process]:
    """Those to ask. Raises BadRequest where there can be none."""
    row = await services.registry.deployments.get(ref)
    if row.engine is Engine.EXTERNAL:
        raise BadRequest(
            f"The deployment {row.name!r} has an external engine, which runs on no node.",
            next_step="Look where that engine runs.",
        )
    names = {node.id: node.name for node in await services.registry.nodes.list()}
    found = [
        _Process(each.id, seat.node_id, names.get(seat.node_id, seat.node_id))
        for each in await services.registry.replicas.list()
        if each.deployment_id == row.id and replica in {"", each.id}
        for seat in each.seats
    ]
    if not found:
        raise _nothing(row, replica)
    return found


def _nothing(row: DeploymentRow, replica: str) -> BadRequest:
    which = f"The replica {replica!r} of" if replica else "No replica of"
    placed = "is none, or has no place" if replica else "has a place yet"
    return BadRequest(
        f"{which} the deployment {row.name!r} {placed}.",
        next_step=f"`cic deployment show {row.name}` lists its replicas.",
    )


async def _ask_all(
    services: Services,
    processes: Sequence[_Process],
    kind: QuestionKind,
    read: Callable[[bytes], T],
) -> list[T | CrossLogicError]:
    """What each answered, or why it did not. Raises what the first said when none answered."""
    free = asyncio.Semaphore(_ASKED_AT_ONCE)
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(_ask(services, process, kind, read, free)) for process in processes
        ]
    found = [task.result() for task in asked]
    failures = [each for each in found if isinstance(each, CrossLogicError)]
    if len(failures) == len(found):
        raise failures[0]
    return found


async def _ask(
    services: Services,
    process: _Process,
    kind: QuestionKind,
    read: Callable[[bytes], T],
    free: asyncio.Semaphore,
) -> T | CrossLogicError:
    live = services.live.node(process.node_id)
    if live is None or live.state == "unreachable":
        return NodeAway(
            f"The node {process.node} is not heard of, and cannot be asked.",
            next_step=f"`cic node show {process.node}` tells when it was heard last. Its files"
            " stay there: ask again when it is back.",
        )
    try:
        async with free:
            said = await services.live.ask_node(process.node_id, kind, process.replica)
        return read(said)
    except CrossLogicError as error:
        return error
    except msgspec.DecodeError as error:
        return BadNodeAnswer(
            f"What the node {process.node} answered makes no sense: {error}.",
            next_step="Run the same release on the node.",
        )


ROUTES: Final = (
    Route(
        *("GET", "/v1/deployments/{ref}/logs", "The ends of its engines' logs"),
        *(deployment_logs, list[ReplicaLog]),
        query=LogTail,
        role="operator",
    ),
    Route(
        *("GET", "/v1/deployments/{ref}/dumps", "What was kept of engines that hung"),
        *(deployment_dumps, list[ReplicaDump]),
        query=OfReplica,
        role="operator",
    ),
)
