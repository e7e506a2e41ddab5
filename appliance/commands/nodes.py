"""`cic node` and `cic region`."""

from decimal import Decimal, InvalidOperation
from typing import Final

import click

from appliance.commands.client import AdminClient, object_path
from appliance.commands.gpus import show_node
from appliance.commands.moments import Span
from appliance.commands.node_tokens import certificates, revoke_node, token
from appliance.commands.noun import Noun, add_common
from appliance.commands.output import Column, print_fields
from appliance.wire.command import Invocation
from appliance.wire.fleet import (
    Node,
    NodeCreate,
    NodeNoticeGive,
    NodeUpdate,
    NodeWishSet,
    Region,
    RegionCreate,
    RegionUpdate,
)

NODE: Final = Noun(
    word="node",
    collection="nodes",
    answer=Node,
    columns=(
        Column("NAME", lambda row: row.name),
        Column("REGION", lambda row: row.region),
        Column("STATE", lambda row: row.state),
        Column("HEALTH", lambda row: None if row.health is None else row.health.score, right=True),
        Column("REASON", lambda row: row.reason),
        Column("CORES", lambda row: row.cores, right=True),
        Column("MEMORY BYTES", lambda row: row.memory_bytes, right=True),
        Column("GPUS", lambda row: row.gpus),
        Column("ENGINES", lambda row: row.engines),
        Column("SEEN", lambda row: row.last_seen_at),
        Column("ID", lambda row: row.id),
    ),
    show=show_node,
)


def factor_of(row: Region) -> str:
    """A multiplier as people write it: 7000 basis points are 0.7."""
    return str(Decimal(row.multiplier_bp) / 10_000)


def show_region(row: Region) -> None:
    print_fields(
        (("name", row.name), ("multiplier", factor_of(row)), ("created_at", row.created_at))
    )


REGION: Final = Noun(
    word="region",
    collection="regions",
    answer=Region,
    columns=(
        Column("NAME", lambda row: row.name),
        Column("MULTIPLIER", factor_of, right=True),
        Column("CREATED", lambda row: row.created_at),
    ),
    suspends=False,
    show=show_region,
)


class Multiplier(click.ParamType[int]):
    """A price multiplier as people write it, 0.7; kept in basis points, 7000."""

    name = "FACTOR"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        try:
            basis_points = Decimal(value) * 10_000
        except InvalidOperation:
            self.fail(f"{value!r} is no factor: write 0.7 or 1.0.", param, ctx)
        if not basis_points.is_finite() or basis_points < 0:
            self.fail(f"{value!r} is no factor: write 0.7 or 1.0.", param, ctx)
        if basis_points != int(basis_points):
            self.fail(f"{value!r}: a factor has at most four digits behind the point.", param, ctx)
        return int(basis_points)


@click.group()
def node() -> None:
    """Nodes: machines whose agents run engines."""


@node.command("create")
@click.argument("name")
@click.option("--region", help="Default: the site's region.")
@click.pass_obj
def create_node(invocation: Invocation, name: str, region: str | None) -> None:
    """Expect a node of this name. Its agent makes it ready."""
    with AdminClient(invocation.home) as client:
        item = client.send("POST", "/v1/nodes", Node, NodeCreate(name=name, region=region))
    NODE.print(invocation, item)


@node.command("update")
@click.argument("ref")
@click.option("--name", help="Its new name.")
@click.option("--region")
@click.pass_obj
def update_node(invocation: Invocation, ref: str, name: str | None, region: str | None) -> None:
    """Change the node REF, an id or a name."""
    body = NodeUpdate(name=name, region=region)
    with AdminClient(invocation.home) as client:
        item = client.send("PATCH", object_path("nodes", ref), Node, body)
    NODE.print(invocation, item)


@node.command("drain")
@click.argument("ref")
@click.option("--reason", default="", help="For those who come after.")
@click.option(
    "--notice",
    type=Span(),
    help="The machine will be gone after so long: 120, 2m, 1h. By then nothing runs on it.",
)
@click.pass_obj
def drain_node(invocation: Invocation, ref: str, reason: str, notice: int | None) -> None:
    """Empty the node REF without a gap: what runs there is started elsewhere first.

    Replicas for which there is no other place go on serving there, unless --notice says that the
    machine will be gone. The node takes no new ones, also after restarts and upgrades, until it is
    resumed.
    """
    if notice is None:
        _wish(invocation, ref, "drain", reason)
        return
    body = NodeNoticeGive(in_s=notice, reason=reason)
    with AdminClient(invocation.home) as client:
        item = client.send("POST", object_path("nodes", ref, "notice"), Node, body)
    NODE.print(invocation, item)


@node.command("maintenance")
@click.argument("ref")
@click.option("--reason", default="", help="For those who come after.")
@click.pass_obj
def maintain_node(invocation: Invocation, ref: str, reason: str) -> None:
    """Stop everything on the node REF, also what has no other place, until it is resumed."""
    _wish(invocation, ref, "maintenance", reason)


def _wish(invocation: Invocation, ref: str, verb: str, reason: str) -> None:
    with AdminClient(invocation.home) as client:
        path = object_path("nodes", ref, verb)
        item = client.send("POST", path, Node, NodeWishSet(reason=reason))
    NODE.print(invocation, item)


@click.group()
def region() -> None:
    """Regions: where environments are pinned to, with price multipliers."""


@region.command("create")
@click.argument("name")
@click.option("--multiplier", type=Multiplier(), default="1.0", show_default=True)
@click.pass_obj
def create_region(invocation: Invocation, name: str, multiplier: int) -> None:
    """Create a region."""
    body = RegionCreate(name=name, multiplier_bp=multiplier)
    with AdminClient(invocation.home) as client:
        item = client.send("POST", "/v1/regions", Region, body)
    REGION.print(invocation, item)


@region.command("update")
@click.argument("ref")
@click.option("--multiplier", type=Multiplier(), required=True)
@click.pass_obj
def update_region(invocation: Invocation, ref: str, multiplier: int) -> None:
    """Change the multiplier of the region REF."""
    body = RegionUpdate(multiplier_bp=multiplier)
    with AdminClient(invocation.home) as client:
        item = client.send("PATCH", object_path("regions", ref), Region, body)
    REGION.print(invocation, item)


add_common(node, NODE)
node.add_command(token)
node.add_command(certificates)
node.add_command(revoke_node)
add_common(region, REGION)
