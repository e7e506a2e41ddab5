"""`cic doctor`: the health checks of the site, each with what to do."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from typing import Final

import click
import msgspec

from appliance.commands.client import AdminClient
from appliance.commands.context import require_site
from appliance.commands.output import plain_text, print_json
from appliance.domain.clock import SystemClock
from appliance.wire.checks import CheckOutcome, CheckResult
from appliance.wire.command import CommandError, ExitCode, Invocation
from appliance.wire.home import Home

# An engine may take its time for a token, a disk for its file.
_TIMEOUT_S: Final = 180.0
_WORDS: Final[dict[CheckOutcome, str]] = {
    "ok": "ok",
    "warning": "WARNING",
    "failed": "FAILED",
    "skipped": "skipped",
}


@click.command()
@click.option("--only", default="", metavar="NAME", help="Only checks whose names begin so.")
@click.option("--strict", is_flag=True, help="Warnings count as failures for the exit code.")
@click.pass_context
def doctor(ctx: click.Context, only: str, *, strict: bool) -> None:
    """Check the site: engines, disks, books, clock, certificates, nodes, settings and more.

    Also of a site that does not run: then what it would need to start. Ends with 6 when a check
    failed, else with 0.
    """
    invocation: Invocation = ctx.obj
    require_site(invocation.home)
    told: list[CheckResult] = []
    for result in _results(invocation.home, only):
        told.append(result)
        if not invocation.json:
            click.echo(plain_text(line(result)))
            if result.fix and result.outcome in {"warning", "failed"}:
                click.echo(plain_text(f"          {result.why}"))
                click.echo(plain_text(f"          -> {result.fix}"))
    counts = Counter(result.outcome for result in told)
    if invocation.json:
        print_json({"ok": not counts["failed"], "counts": dict(counts), "checks": told})
    else:
        click.echo(
            f"\n{counts['ok']} ok, {counts['warning']} warnings, {counts['failed']} failed,"
            f" {counts['skipped']} skipped."
        )
    if counts["failed"] or (strict and counts["warning"]):
        ctx.exit(ExitCode.DAMAGED)


def line(result: CheckResult) -> str:
    """`FAILED    disk.space /var/lib/crosslogic: 1.2 GiB of 1.8 TiB free (0%).`"""
    subject = f" {result.subject}" if result.subject else ""
    return f"{_WORDS[result.outcome]:10}{result.name}{subject}: {result.seen}"


def _results(home: Home, only: str) -> Iterator[CheckResult]:
    try:
        with AdminClient(home, timeout_s=_TIMEOUT_S) as client:
            for found in client.lines("/v1/checks", {"only": only or None}):
                if found:
                    yield msgspec.json.decode(found, type=CheckResult)
    except CommandError as error:
        if getattr(error, "wire_code", "") != "not_running":
            raise
        yield from _stopped(home, only)


def _stopped(home: Home, only: str) -> Iterator[CheckResult]:
    from appliance.checking.runner import Checks  # noqa: PLC0415 (not for a site that runs)
    from appliance.checking.site import stopped_checks  # noqa: PLC0415 (the same)

    async def collect() -> list[CheckResult]:
        return [result async for result in checks.run(only)]

    checks = Checks(stopped_checks(home, os.environ), SystemClock())
    yield from asyncio.run(collect())
