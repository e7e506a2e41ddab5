"""The command line of the preflight."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from installer.checks.catalogue import chosen
from installer.checks.clock import EARLIEST
from installer.checks.findings import Group, Role, Severity, Wanted
from installer.checks.host import Host
from installer.checks.real_host import RealHost
from installer.checks.runner import run_checks
from installer.checks.table import as_json, listing, table

EXIT_READY, EXIT_BLOCKED = 0, 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cic-installer preflight",
        description="Look whether this server can take the appliance. Nothing is changed.",
    )
    parser.add_argument(
        "--role",
        choices=[role.value for role in Role],
        default=Role.ALL.value,
        help="what the server is to be (all)",
    )
    parser.add_argument("--only", choices=[group.value for group in Group], help="one group alone")
    parser.add_argument(
        "--models-gb", type=int, default=100, metavar="GB", help="room wanted for models (100)"
    )
    parser.add_argument("--json", action="store_true", help="write the findings as JSON")
    parser.add_argument("--list", action="store_true", help="list the checks and run none")
    return parser


def built_at() -> datetime | None:
    """When this program was built: files of a bundle carry that date."""
    try:
        told = datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)
    except OSError:
        return None  # it runs from an archive
    return told if told >= EARLIEST else None  # an archiver that keeps no dates writes 1970 or 1980


def preflight(arguments: Sequence[str], host: Host | None = None) -> int:
    """Run the checks and print what they found; 0, or 3 when something blocks the installation.

    Raises SystemExit(2) for a command line that cannot be read, as argparse does.
    """
    asked = _parser().parse_args(arguments)
    role = Role(asked.role)
    checks = chosen(role, Group(asked.only) if asked.only else None)
    if asked.list:
        print(listing(checks))
        return EXIT_READY
    wanted = Wanted(role, asked.models_gb * 1000**3, built_at())
    findings = run_checks(host or RealHost(), wanted, checks)
    if asked.json:
        print(as_json(findings, role))
    else:
        coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print(table(findings, coloured=coloured))
    blocked = any(one.severity is Severity.BLOCKER for one in findings)
    return EXIT_BLOCKED if blocked else EXIT_READY
