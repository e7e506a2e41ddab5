"""`cic logs`: the log of the running appliance."""

import click
import msgspec

from appliance.commands.client import AdminClient
from appliance.commands.moments import Moment
from appliance.commands.output import plain_text, readable_time
from appliance.wire.command import Invocation
from appliance.wire.log_lines import LOG_LEVELS, LogLine

_LINES: int = 200


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "--level", type=click.Choice(LOG_LEVELS), default="debug", help="This level and worse."
)
@click.option("--grep", "contains", metavar="TEXT", help="Only lines with TEXT, in any case.")
@click.option("--since", type=Moment(-1), help="Only what is not older: 10m, 2h, or a moment.")
@click.option(
    "--lines",
    type=click.IntRange(min=0),
    help=f"The last so many. Default: {_LINES}, or all with --since.",
)
@click.pass_obj
def logs(
    invocation: Invocation,
    level: str,
    contains: str | None,
    since: str | None,
    lines: int | None,
    *,
    follow: bool,
) -> None:
    """Show the appliance's own log, the last 10,000 lines of it, and follow it.

    With --json one object a line. Engines' logs: `cic deployment logs`.
    """
    if lines is None and since is None:
        lines = _LINES
    query = {
        "level": level,
        "contains": contains or None,
        "since": since,
        "lines": lines,
        "follow": "true" if follow else None,
    }
    with AdminClient(invocation.home) as client:
        for line in client.lines("/v1/logs", query):
            if not line:
                continue
            if invocation.json:
                click.echo(line)
            else:
                click.echo(sentence(msgspec.json.decode(line, type=LogLine)))


def sentence(line: LogLine) -> str:
    """`2026-11-22 19:22:03Z WARNING appliance.fleet: node lost node=n7`, on one terminal line."""
    told = " ".join(f"{name}={_value(raw)}" for name, raw in line.fields.items())
    logger = line.logger.removeprefix("appliance.")
    text = f"{readable_time(line.at)} {line.level.upper():8}{logger}: {line.event} {told}".rstrip()
    missed = f"({line.missed:,} lines before this one are forgotten)\n" if line.missed else ""
    return missed + plain_text(text)


def _value(raw: msgspec.Raw) -> str:
    value = msgspec.json.decode(raw)
    return value if isinstance(value, str) else bytes(raw).decode()
