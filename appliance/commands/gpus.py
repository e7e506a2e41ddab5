"""`cic gpu`, and what `cic node show` says of a node's health."""

from collections.abc import Iterator
from typing import Final

import click

from appliance.commands.client import AdminClient
from appliance.commands.output import Column, fields_of, print_fields, print_json, print_rows
from appliance.wire.command import Invocation
from appliance.wire.fleet import Node
from appliance.wire.gpu import NodeGpu

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


@click.group()
def gpu() -> None:
    """GPUs of the nodes, as their drivers tell."""


@gpu.command("list")
@click.option("--node", metavar="NODE", help="Only of this node, an id or a name.")
@click.pass_obj
def list_gpus(invocation: Invocation, node: str | None) -> None:
    """List GPUs with their figures. A figure the driver does not tell is left out."""
    with AdminClient(invocation.home) as client:
        rows = client.get("/v1/gpus", list[NodeGpu])
    if node is not None:
        rows = [row for row in rows if node in {row.node, row.node_id}]
    if invocation.json:
        print_json(rows)
    else:
        print_rows(rows, COLUMNS, "No GPUs: no node has told of any.")


def show_node(row: Node) -> None:
    """A node for people: its fields, then its health part by part, then its faults."""
    plain = [field for field in fields_of(row) if not field[0].startswith(("health", "driver"))]
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
