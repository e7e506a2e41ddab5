"""`cic top`: the site at a glance, for scripts, screen readers and plain terminals."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click
import msgspec

from appliance.commands.client import AdminClient
from appliance.commands.output import Column, print_fields, print_json, print_rows
from appliance.wire.command import Invocation
from appliance.wire.stream import Row, Tick, Topic

_TOPICS: Final[tuple[Topic, ...]] = (
    *("site", "nodes", "deployments", "tenants", "alerts", "sync"),
)
_ROWS_MAX: Final = 15
_EVERY_S: Final = 2.0
_CLEAR: Final = "\x1b[H\x1b[2J"
Tables = Mapping[Topic, Mapping[str, Row]]

_DEPLOYMENTS: Final[list[Column[Row]]] = [
    Column("MODEL", lambda row: row["name"]),
    Column("REP", lambda row: f"{row['replicas_ready']}/{row['replicas_wanted']}"),
    Column("STATE", lambda row: row["state"]),
    Column("RUN", lambda row: row["requests_running"], right=True),
    Column("WAIT", lambda row: row["requests_queued"], right=True),
    Column("TOK/S", lambda row: row["output_tokens_per_s"], right=True),
    Column("TTFT95 MS", lambda row: row["first_token_p95_ms"], right=True),
]
_NODES: Final[list[Column[Row]]] = [
    Column("NODE", lambda row: row["name"]),
    Column("STATE", lambda row: row["state"]),
    Column("HEALTH", lambda row: (row["health"] or {}).get("score"), right=True),
    Column("GPUS", lambda row: len(row["gpus"]), right=True),
    Column("REASON", lambda row: row["reason"]),
]
_TENANTS: Final[list[Column[Row]]] = [
    Column("TENANT", lambda row: row["name"]),
    Column("RUN", lambda row: row["requests_running"], right=True),
    Column("TOK/S", lambda row: row["output_tokens_per_s"], right=True),
    Column("LIMIT %", lambda row: row["limit_percent"], right=True),
]
_ALERTS: Final[list[Column[Row]]] = [
    Column("SEVERITY", lambda row: row["severity"]),
    Column("ATTENTION", lambda row: row["text"]),
    Column("NEXT", lambda row: row["next_step"]),
]


@click.command()
@click.option("--once", is_flag=True, help="Print it once, as where nothing can be repainted.")
@click.option("--plain", is_flag=True, help="One fact a line, in words: for screen readers.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.5, 60.0),
    metavar="S",
    help="Again and again, S seconds apart; with --json one object a line. A terminal: each 2 s.",
)
@click.pass_obj
def top(invocation: Invocation, every_s: float | None, *, once: bool, plain: bool) -> None:
    """The site at a glance: nodes, deployments, busy tenants, alerts.

    On a terminal it is painted again and again until Ctrl-C; otherwise, and with --once, --json or
    --plain, it is told once.
    """
    repaint = sys.stdout.isatty() and not (plain or invocation.json)
    follow = not once and (repaint or every_s is not None)
    with AdminClient(invocation.home) as client:
        for at, tables in _ticks(client, every_s or _EVERY_S):
            if invocation.json and follow:
                click.echo(msgspec.json.encode({"at": at, "tables": tables}))
            elif invocation.json:
                print_json({"at": at, "tables": tables})
            elif plain:
                _say(at, tables)
            else:
                if repaint and follow:
                    click.echo(_CLEAR, nl=False)
                _show(at, tables)
            if not follow:
                return


def _ticks(client: AdminClient, every_s: float) -> Iterator[tuple[str, Tables]]:
    """The tables as they are, with each event of the live stream."""
    tables: dict[Topic, dict[str, Row]] = {topic: {} for topic in _TOPICS}
    query = {"topics": ",".join(_TOPICS), "every_s": str(every_s)}
    for line in client.lines("/v1/stream", query):
        if not line.startswith(b"data: "):
            continue
        tick = msgspec.json.decode(line[6:], type=Tick)
        for change in tick.changes:
            table = {} if change.whole else tables[change.topic]
            for row_id, fields in change.rows.items():
                table[row_id] = {**table.get(row_id, {}), **fields}
            for row_id in change.gone:
                table.pop(row_id, None)
            tables[change.topic] = table
        yield tick.at, tables


def _show(at: str, tables: Tables) -> None:
    site = _site(tables)
    print_fields(
        (
            ("site", f"{site['name']} {site['version']} at {at}"),
            ("endpoint", site["endpoint"]),
            ("ready", site["ready"]),
            ("requests", f"{site['requests_running']} running, {site['requests_queued']} waiting"),
            ("tokens out", _rate(site["output_tokens_per_s"])),
            ("first token p95", _milliseconds(site["first_token_p95_ms"])),
            ("control plane", _cloud(tables)),
        )
    )
    for columns, topic, nothing in (
        (_ALERTS, "alerts", "Nothing wants attention."),
        (_NODES, "nodes", "No nodes yet."),
        (_DEPLOYMENTS, "deployments", "No deployments yet."),
        (_TENANTS, "tenants", "No tenants yet."),
    ):
        click.echo()
        rows = _busiest(tables[topic].values())  # type: ignore[index]  # four of the topics
        if rows:
            print_rows(rows[:_ROWS_MAX], columns, nothing)
        else:
            click.echo(nothing)
        if len(rows) > _ROWS_MAX:
            click.echo(f"and {len(rows) - _ROWS_MAX} more")


def _say(at: str, tables: Tables) -> None:
    site = _site(tables)
    click.echo(f"{site['name']}, {at}: {'ready' if site['ready'] else 'not ready'}.")
    click.echo(f"{site['requests_running']} requests run, {site['requests_queued']} wait.")
    click.echo(f"Tokens out: {_rate(site['output_tokens_per_s'])}.")
    click.echo(f"Control plane: {_cloud(tables)}.")
    alerts = list(tables["alerts"].values())
    number = f"{len(alerts)} alert{'' if len(alerts) == 1 else 's'}."
    click.echo(number if alerts else "No alerts.")
    for row in alerts:
        click.echo(f"{row['severity']}: {row['text']} Next: {row['next_step']}")
    for row in tables["nodes"].values():
        score = (row["health"] or {}).get("score")
        health = "" if score is None else f", health {score} of 100"
        click.echo(f"Node {row['name']}: {row['state']}{health}. {row['reason']}".rstrip())
    for row in tables["deployments"].values():
        click.echo(
            f"Deployment {row['name']}: {row['state']}, {row['replicas_ready']} of"
            f" {row['replicas_wanted']} replicas, {row['requests_running']} requests run,"
            f" {row['requests_queued']} wait, {_rate(row['output_tokens_per_s'])}."
        )


def _site(tables: Tables) -> Row:
    return tables["site"]["site"]


def _busiest(rows: Any) -> Sequence[Row]:
    return sorted(
        rows, key=lambda row: (-(row.get("output_tokens_per_s") or 0), str(row.get("name")))
    )


def _cloud(tables: Tables) -> str:
    sync = tables["sync"].get("sync", {})
    waiting = sync.get("lag_manifests") or 0
    return f"{sync.get('state', 'unknown')}, {waiting} manifests wait"


def _rate(value: float | None) -> str:
    return "not measured yet" if value is None else f"{value:,.1f} a second"


def _milliseconds(value: float | None) -> str:
    return "none in the last minute" if value is None else f"{value:,.0f} ms"
