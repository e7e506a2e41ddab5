"""`cic deployment logs` and `cic deployment dumps`: what engines wrote, and how they hung."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from appliance.commands.client import AdminClient, object_path
from appliance.commands.output import Column, plain_text, print_json, print_rows
from appliance.wire.command import CommandError, ExitCode, Invocation
from appliance.wire.engine_traces import LOG_LINES_MAX, Dump, ReplicaDump, ReplicaLog

# Nodes answer with their heartbeats: a large deployment takes some rounds of them.
_TIMEOUT_S: Final = 180.0
_FOLLOW_S: Final = 2.0

DUMP_COLUMNS: Final[tuple[Column[ReplicaDump], ...]] = (
    Column("REPLICA", lambda row: row.replica),
    Column("NODE", lambda row: row.node),
    Column("AT", lambda row: row.at),
    Column("PID", lambda row: None if row.dump is None else str(row.dump.pid)),
    Column("PROCESSES", lambda row: row.dump and len(row.dump.processes), right=True),
    Column("REASON", lambda row: row.problem or (row.dump.reason if row.dump else "none taken")),
)


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a followed log, for programs."""

    replica: str
    node: str
    line: str


@click.command("logs")
@click.argument("ref")
@click.option("--replica", metavar="ID", default="", help="Only of this replica.")
@click.option(
    "--lines",
    type=click.IntRange(1, LOG_LINES_MAX),
    default=LOG_LINES_MAX,
    show_default=True,
    help="So many of the last ones of each.",
)
@click.option("--follow", is_flag=True, help="Go on with what they write, until interrupted.")
@click.pass_obj
def show_logs(invocation: Invocation, ref: str, replica: str, lines: int, *, follow: bool) -> None:
    """The ends of the logs of the engines of REF, asked of their nodes.

    Of the latest start of each. Lines that may quote a request are left out.
    """
    query: dict[str, str | int | None] = {"replica": replica, "lines": lines}
    path = object_path("deployments", ref, "logs")
    with AdminClient(invocation.home, timeout_s=_TIMEOUT_S) as client:
        found = client.get(path, list[ReplicaLog], query)
        if not follow:
            _print(invocation, found)
            return
        query["lines"] = LOG_LINES_MAX
        _print_lines(invocation, _lines_of(found))
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(_FOLLOW_S)
                before, found = found, client.get(path, list[ReplicaLog], query)
                _print_lines(invocation, _lines_of(found, before))


def _print(invocation: Invocation, found: Sequence[ReplicaLog]) -> None:
    if invocation.json:
        print_json(found)
        return
    for number, log in enumerate(found):
        if len(found) > 1:
            click.echo(f"{'' if number == 0 else chr(10)}==> {log.replica} on {log.node} <==")
        for line in log.lines:
            click.echo(plain_text(line))
        if log.problem:
            click.echo(plain_text(log.problem), err=True)
        elif not log.lines:
            click.echo("No lines: it has written nothing since its start.", err=True)


def _print_lines(invocation: Invocation, lines: Iterable[LogLine]) -> None:
    for line in lines:
        if invocation.json:
            click.echo(msgspec.json.encode(line))
        else:
            click.echo(f"{line.replica} {plain_text(line.line)}")


def _lines_of(found: Sequence[ReplicaLog], before: Sequence[ReplicaLog] = ()) -> Iterator[LogLine]:
    known = {(log.replica, log.node): log.lines for log in before}
    for log in found:
        for line in new_lines(known.get((log.replica, log.node), []), log.lines):
            yield LogLine(replica=log.replica, node=log.node, line=line)


def new_lines(before: Sequence[str], now: Sequence[str]) -> Sequence[str]:
    """What `now` has beyond `before`, both the end of one log; all of it when it began anew."""
    for count in range(min(len(before), len(now)), 0, -1):
        if list(before[-count:]) == list(now[:count]):
            return now[count:]
    return now


@click.command("dumps")
@click.argument("ref")
@click.option("--replica", metavar="ID", default="", help="Only of this replica, and all of it.")
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write each as JSON into this folder.",
)
@click.pass_obj
def show_dumps(invocation: Invocation, ref: str, replica: str, save: Path | None) -> None:
    """What was kept of engines of REF that hung, before they were killed: the latest of each.

    Where the threads of its processes stood, and the end of its log; nothing of a request.
    """
    path = object_path("deployments", ref, "dumps")
    with AdminClient(invocation.home, timeout_s=_TIMEOUT_S) as client:
        found = client.get(path, list[ReplicaDump], {"replica": replica})
    if save is not None:
        for each in found:
            if each.dump is not None:
                click.echo(f"Saved {_save(save, each, each.dump)}.", err=True)
    if invocation.json:
        print_json(found)
        return
    print_rows(found, DUMP_COLUMNS, "")
    if replica:
        for each in found:
            if each.dump is not None:
                _print_dump(each.dump)


def _save(folder: Path, row: ReplicaDump, dump: Dump) -> Path:
    """For its owner's eyes only, like everything that engines write."""
    path = folder / f"{row.replica}-{dump.at_ns}-{dump.pid}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(row), indent=2))
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written: {error.strerror}.",
            next_step="Name a folder that you may write to with --save.",
            exit_code=ExitCode.CONFIGURATION,
        ) from error
    return path


def _print_dump(dump: Dump) -> None:
    for process in dump.processes:
        memory = "-" if process.memory_bytes is None else f"{process.memory_bytes:,} bytes"
        click.echo()
        click.echo(plain_text(f"process {process.pid} {process.name}, memory {memory}"))
        for thread in process.threads:
            waits = thread.waits_in if thread.waits_in not in {"", "0"} else "-"
            click.echo(
                plain_text(f"  {thread.tid} {thread.name}: {thread.state}, waits in {waits}")
            )
            for line in thread.stack.splitlines():
                click.echo(plain_text(f"    {line}"))
    if dump.log:
        click.echo("\nThe end of its log:")
    for line in dump.log:
        click.echo(plain_text(f"  {line}"))
