"""The words of the command line, with their help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

EPILOG = """\
Exit codes: 0 done; 1 refused or failed; 2 usage; 3 the preflight found blockers; 4 the bundle is
not genuine; 5 another installer runs. What was cut short goes on where it stopped when it is
started again; every step and its undoing stand in /var/lib/crosslogic-installer/journal.jsonl.
"""
PASSED_ON = {
    "backup": ("backup",),
    "restore": ("backup", "restore"),
    "support-bundle": ("support", "create"),
}


def _common(*, changes: bool) -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--prefix", default="/", metavar="ROOT", help="install below another root, not below /"
    )
    common.add_argument("--json", action="store_true", help="print one JSON object at the end")
    if changes:
        common.add_argument("--dry-run", action="store_true", help="show what would be done")
        common.add_argument("--yes", action="store_true", help="do not ask at the terminal")
    return common


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        prog="cic-installer",
        description="Installs, upgrades and removes the CrossLogic appliance. Without a command: "
        "install.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    changing, reading = _common(changes=True), _common(changes=False)
    commands.add_parser("preflight", help="look whether this server can take the appliance")
    install = commands.add_parser(
        "install",
        parents=[changing],
        help="install the bundle, or go on with an installation that was cut short",
    )
    install.add_argument("--answers", default="", metavar="FILE", help="a TOML file; - for stdin")
    install.add_argument("--print-answers", action="store_true", help="print an example of it")
    install.add_argument("--preflight", action="store_true", help="run the checks and do no more")
    install.add_argument("--bundle", default="", metavar="FOLDER", help="an unpacked bundle")
    install.add_argument("--model", default="", metavar="FILE", help="the first model")
    _ignore(install)
    install.add_argument(
        "--undo", action="store_true", help="remove what an unfinished installation made"
    )
    _joining(commands.add_parser("join", parents=[changing], help="make this host a GPU node"))
    _moving(commands, changing, reading)
    commands.add_parser("history", parents=[reading], help="what was done, and what came of it")
    uninstall = commands.add_parser("uninstall", parents=[changing], help="remove the appliance")
    uninstall.add_argument(
        "--purge", action="store_true", help="with data, keys, settings and accounts"
    )
    for name, words in PASSED_ON.items():
        commands.add_parser(name, add_help=False, help=f"cic {' '.join(words)} … of this version")
    return whole


def _moving(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    changing: argparse.ArgumentParser,
    reading: argparse.ArgumentParser,
) -> None:
    """Commands that go from one version to another, or remove one."""
    upgrade = commands.add_parser(
        "upgrade",
        parents=[changing],
        help="go to the bundle's version",
        description="Checks the bundle with the key of this site, makes a backup, tries the new "
        "version offline, switches to it and proves it; or goes back by itself.",
    )
    upgrade.add_argument(
        "bundle",
        nargs="?",
        default="",
        help="a folder or .tar.gz of a bundle; without one, that of a run that was cut short",
    )
    _ignore(upgrade)
    upgrade.add_argument(
        "--undo", action="store_true", help="take back an upgrade that was cut short, and no more"
    )
    _no_completion(upgrade)
    upgrade.add_argument(
        "--no-backup",
        action="store_true",
        help="make none: for a site whose version in use no longer starts",
    )
    rollback = commands.add_parser(
        "rollback",
        parents=[changing],
        help="go back to the version before",
        description="Goes back to an earlier version that is still there, and proves it.",
    )
    rollback.add_argument(
        "--to", default="", metavar="VERSION", help="an earlier one that is there"
    )
    rollback.add_argument(
        "--with-backup",
        action="store_true",
        help="put back the backup that was made before that version was left",
    )
    _no_completion(rollback)
    versions = commands.add_parser(
        "versions", parents=[reading], help="what is installed; remove an old version"
    )
    versions.add_argument("--remove", default="", metavar="VERSION", help="one that is not in use")
    versions.add_argument("--yes", action="store_true", help="do not ask at the terminal")


def _no_completion(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--no-completion",
        action="store_true",
        help="do not ask a model before the version counts as good",
    )


def _ignore(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="CHECK",
        help="go on in spite of a blocker of the preflight; may be repeated",
    )


def _joining(join: argparse.ArgumentParser) -> None:
    join.add_argument("--server", required=True, metavar="URL", help="of the site's node API")
    join.add_argument(
        "--token", default="", help="as `cic node token create` prints; also CIC_JOIN_TOKEN"
    )
    join.add_argument("--name", default="", help="of this node (the token's, or the host's name)")
    join.add_argument("--force", action="store_true", help="leave the site it joined before")
    join.add_argument("--bundle", default="", metavar="FOLDER", help="an unpacked bundle")
    join.add_argument("--engine", default="", metavar="FOLDER", help="a bundle of llama.cpp")
    _ignore(join)


def with_command(words: Sequence[str]) -> list[str]:
    """`install` where no command was given: ./install.sh --dry-run is ./install.sh install …"""
    if words and (not words[0].startswith("-") or words[0] in {"-h", "--help"}):
        return list(words)  # also one that is none: it is named then
    return ["install", *words]
