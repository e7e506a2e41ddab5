"""`cic gpu`, and what `cic node show` says of a node's health."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import click

from appliance.commands.client import AdminClient, object_path
from appliance.commands.output import Column, fields_of, print_fields, print_json, print_rows
from appliance.domain.clock import iso
from appliance.wire.command import Invocation
from appliance.wire.fleet import Node
from appliance.wire.gpu import GpuHistory, GpuPoint, NodeGpu

_GIB: Final = 1024**3


def _gib(size_bytes: int | None) -> str | None:
    return None if size_bytes is None else f"{size_bytes / _GIB:.1f}"


def _watts(power: float | None) -> str | None:
    return None if power is None else f"{power:.0f}"


COLUMNS: Final = (
    Column[NodeGpu]("NODE", lambda row: row.node),
    Column[NodeGpu]("GPU", lambda row: row.index, right=True),
    Column[NodeGpu]("NAME", lambda row: row.name),
    Column[NodeGpu]("STATE", lambda row: f"{row.state} (old)" if row.stale else row.state),
    Column[NodeGpu]("SCORE", lambda row: row.score, right=True),
    Column[NodeGpu]("USED GIB", lambda row: _gib(row.memory_used_bytes), right=True),
    Column[NodeGpu]("TOTAL GIB", lambda row: _gib(row.memory_total_bytes), right=True),
    Column[NodeGpu]("BUSY %", lambda row: row.utilisation, right=True),
    Column[NodeGpu]("°C", lambda row: row.temperature, right=True),
    Column[NodeGpu]("W", lambda row: _watts(row.power), right=True),
    Column[NodeGpu]("MIG", lambda row: len(row.slices) if row.mig else "", right=True),
    Column[NodeGpu]("XIDS", lambda row: [str(xid) for xid in row.xids]),
    Column[NodeGpu]("UUID", lambda row: row.uuid),
)


@dataclass(frozen=True, slots=True)
class _Moment:
    uuid: str
    step_s: int
    point: GpuPoint


MOMENTS: Final = (
    Column[_Moment]("AT", lambda row: iso(row.point.at_s * 1_000_000_000)),
    Column[_Moment]("SECONDS", lambda row: row.step_s, right=True),
    Column[_Moment]("BUSY %", lambda row: row.point.utilisation, right=True),
    Column[_Moment]("USED GIB", lambda row: _gib(row.point.memory_used_bytes), right=True),
    Column[_Moment]("°C", lambda row: row.point.temperature, right=True),
    Column[_Moment]("W", lambda row: row.point.power, right=True),
    Column[_Moment]("SM MHZ", lambda row: row.point.sm_clock, right=True),
    Column[_Moment]("SCORE", lambda row: row.point.score, right=True),
    Column[_Moment]("UUID", lambda row: row.uuid),
)


@click.group()
def gpu() -> None:
    """GPUs of the nodes, as their drivers tell."""


@gpu.command("list")
@click.option("--node", metavar="NODE", help="Only of this node, an id or a name.")
@click.pass_obj
def list_gpus(invocation: Invocation, node: str | None) -> None:
    """List GPUs with their figures. A figure the driver does not tell is left out."""
    with AdminClient(invocation.home) as client:
        only = None if node is None else client.get(object_path("nodes", node), Node)
        rows = client.get("/v1/gpus", list[NodeGpu])
    if only is not None:
        rows = [row for row in rows if row.node_id == only.id]
    if invocation.json:
        print_json(rows)
    else:
        nobody = "no node has" if only is None else f"the node {only.name} has not"
        print_rows(rows, COLUMNS, f"No GPUs: {nobody} told of any.")


@gpu.command("history")
@click.argument("node")
@click.option("--gpu", "uuid", metavar="UUID", default="", help="Only of this GPU.")
@click.pass_obj
def show_history(invocation: Invocation, node: str, uuid: str) -> None:
    """The last hour and the last day of the GPUs of NODE, as it remembers them."""
    with AdminClient(invocation.home) as client:
        path = object_path("nodes", node, "gpu-history")
        found = client.get(object_path("nodes", node), Node)
        history = client.get(path, GpuHistory, {"gpu": uuid})
    if invocation.json:
        print_json(history)
        return
    rows = [
        _Moment(series.uuid, ring.step_s, point)
        for series in history.gpus
        for ring in series.rings
        for point in ring.points
    ]
    nothing = "No history yet: a point takes ten seconds."
    if not found.gpus:
        nothing = f"No history: the node {found.name} has no GPUs."
    elif uuid and not history.gpus:
        nothing = f"No history: the node {found.name} tells of no GPU {uuid}."
    print_rows(rows, MOMENTS, nothing)


def show_node(row: Node) -> None:
    """A node for people: its fields, then its health part by part, then its faults."""
    plain = fields_of(row, omit=("health", "driver"))
    print_fields((*plain, *_driver(row), *_health(row)))


def _driver(row: Node) -> Iterator[tuple[str, object]]:
    if row.driver is None:
        return
    yield "driver", row.driver.version
    yield "cuda", row.driver.cuda
    if row.driver.problem:
        yield "driver problem", row.driver.problem


def _health(row: Node) -> Iterator[tuple[str, object]]:
    if row.health is None:
        return
    yield "health", f"{row.health.score} of 100, {row.health.state}"
    for part in row.health.parts:
        yield f"  {part.name}", f"{part.score} {part.reason}".rstrip()
    for fault in row.health.faults:
        yield f"  {fault.severity}", f"{fault.code}: {fault.message} {fault.next_step}"
