"""The command line of the installer: what is asked, who does it, and how it ends.

Exit codes: 0 done · 1 refused or failed · 2 usage · 3 preflight found blockers · 4 bundle not
genuine · 5 another installer runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from installer.answers import example
from installer.errors import InstallerError, NotInstalled
from installer.installation import Asked, by, install, require_root, undo
from installer.layout import Layout
from installer.looking import installed_version
from installer.options import PASSED_ON, parser, with_command
from installer.records import locked
from installer.retention import remove_by_hand
from installer.terminal import Teller
from installer.uninstallation import uninstall
from installer.upgrade import Wanted, require_installation, rollback, upgrade
from installer.versions import show_history, show_versions

INTERRUPTED = "Interrupted. Run the same again to go on where it stopped."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code. Expected failures show no traceback."""
    words = with_command(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    try:
        if words[0] == "preflight":
            return _preflight(words[1:])
        if words[0] in PASSED_ON:
            return _pass_on(words[0], words[1:])
        asked = parser().parse_args(words)
        if asked.command == "install" and asked.preflight:
            return _preflight(["--json"] if asked.json else [])
        print(_COMMANDS[asked.command](asked, Teller(quiet=as_json)))
    except InstallerError as error:
        _report(error, as_json=as_json)
        return error.exit_code
    except OSError as error:
        _report(_of_the_system(error), as_json=as_json)
        return InstallerError.exit_code
    except KeyboardInterrupt:
        print(f"cic-installer: {INTERRUPTED}", file=sys.stderr)
        return 1
    return 0


def _report(error: InstallerError, *, as_json: bool) -> None:
    if as_json:
        told = {"code": error.code, "message": error.message, "next_step": error.next_step}
        print(json.dumps({"error": told}))
        return
    fix = f"\n  Fix: {error.next_step}" if error.next_step else ""
    print(f"cic-installer: {error.message}{fix}", file=sys.stderr)


def _of_the_system(error: OSError) -> InstallerError:
    """What the system refused, where no step of an operation tells it better."""
    where = f"{error.filename}: " if error.filename else ""
    fix = "Look at the disk (df -h, dmesg) and at the path's owner, then run this again."
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        fix = "Run it with sudo."
    return InstallerError(f"{where}{error.strerror or error}.", next_step=fix)


def _preflight(words: Sequence[str]) -> int:
    from installer.checks.main import preflight  # noqa: PLC0415 (99 checks that others need not)

    return preflight(words)


def _pass_on(command: str, words: Sequence[str]) -> int:
    """The current version's own `cic` takes over this process."""
    program = Layout().current / "bin/cic"
    if installed_version(Layout()) is None or not program.exists():
        raise NotInstalled(
            f"No version is installed, so `{command}` has nothing to work with.",
            next_step="./install.sh in the folder of the unpacked bundle installs one.",
        )
    os.execv(program, ["cic", *PASSED_ON[command], *words])  # noqa: S606 (no shell is wanted)


def _layout(asked: argparse.Namespace) -> Layout:
    return Layout(Path(asked.prefix).absolute())


def _install(asked: argparse.Namespace, tell: Teller) -> str:
    if asked.print_answers:
        return example().rstrip("\n")
    layout = _layout(asked)
    if asked.undo:
        return undo(layout, tell)
    wanted = Asked(
        layout=layout,
        bundle=asked.bundle,
        answers=asked.answers,
        model=asked.model,
        json=asked.json,
        dry_run=asked.dry_run,
        yes=asked.yes,
        ignore=tuple(asked.ignore),
        began_in=Path.cwd(),
    )
    return install(wanted, sys.stdin.buffer.read, tell)


def _uninstall(asked: argparse.Namespace, tell: Teller) -> str:
    return uninstall(
        _layout(asked),
        tell,
        purge=asked.purge,
        yes=asked.yes,
        dry_run=asked.dry_run,
        as_json=asked.json,
    )


def _versions(asked: argparse.Namespace, _: Teller) -> str:
    layout = _layout(asked)
    if asked.remove:
        require_root(layout, changes=True)
        require_installation(layout)
        with locked(layout):
            return remove_by_hand(layout, asked.remove, by=by(), yes=asked.yes, as_json=asked.json)
    return show_versions(_layout(asked), as_json=asked.json)


def _history(asked: argparse.Namespace, _: Teller) -> str:
    return show_history(_layout(asked), as_json=asked.json)


def _wanted(asked: argparse.Namespace) -> Wanted:
    return Wanted(
        layout=_layout(asked),
        began_in=Path.cwd(),
        bundle=getattr(asked, "bundle", ""),
        json=asked.json,
        dry_run=asked.dry_run,
        yes=asked.yes,
        ignore=tuple(getattr(asked, "ignore", ())),
        completion=not asked.no_completion,
        backup=not getattr(asked, "no_backup", False),
        undo=getattr(asked, "undo", False),
        to=getattr(asked, "to", ""),
        with_backup=getattr(asked, "with_backup", False),
    )


def _upgrade(asked: argparse.Namespace, tell: Teller) -> str:
    return upgrade(_wanted(asked), tell)


def _rollback(asked: argparse.Namespace, tell: Teller) -> str:
    return rollback(_wanted(asked), tell)


def _join(_: argparse.Namespace, __: Teller) -> str:
    raise InstallerError(
        "This installer does not set up the services of a GPU node yet.",
        next_step="By hand in the bundle's folder: tree/bin/cic agent join, tree/bin/cic agent"
        " (docs/NODES.md).",
    )


_COMMANDS: Mapping[str, Callable[[argparse.Namespace, Teller], str]] = {
    "install": _install,
    "join": _join,
    "upgrade": _upgrade,
    "rollback": _rollback,
    "uninstall": _uninstall,
    "versions": _versions,
    "history": _history,
}
