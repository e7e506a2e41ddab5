"""`cic history`."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import click

from appliance.commands.client import AdminClient
from appliance.commands.output import Column, print_json, print_rows
from appliance.wire.command import Invocation
from appliance.wire.stream import HistorySeries


@dataclass(frozen=True, slots=True)
class _Point:
    at: str
    of: str
    series: str
    mean: float | None
    largest: float | None
    unit: str


_COLUMNS: Final[list[Column[_Point]]] = [
    Column("AT", lambda row: row.at),
    Column("OF", lambda row: row.of or "site"),
    Column("SERIES", lambda row: row.series),
    Column("MEAN", lambda row: row.mean, right=True),
    Column("MOST", lambda row: row.largest, right=True),
    Column("UNIT", lambda row: row.unit),
]


@click.command()
@click.option("--series", default="", help="output_tokens_per_s, queued, temperature … All.")
@click.option(
    "--of", default="", metavar="WHAT", help="deployment/NAME, tenant/ID, node/NAME. The site."
)
@click.option("--span", type=click.Choice(["1h", "24h", "30d"]), default="1h", show_default=True)
@click.pass_obj
def history(invocation: Invocation, series: str, of: str, span: str) -> None:
    """Figures of the past, as the appliance kept them: by 10 s, by the minute, by the hour."""
    query = {"series": series, "of": of, "span": span}
    with AdminClient(invocation.home) as client:
        found = client.get("/v1/history", list[HistorySeries], query)
    if invocation.json:
        print_json(found)
        return
    points = [
        _Point(
            datetime.fromtimestamp(point.at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            *(each.of, each.series, point.mean, point.largest, each.unit),
        )
        for each in found
        for point in each.points
    ]
    print_rows(points, _COLUMNS, "No history yet: a point takes ten seconds.")
