"""`cic verify`: anything that was signed, checked offline with a public key.

What a command needs anyway is loaded at the top; ledger.db is opened only where no key was given.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from appliance.commands.context import Refused, absolute
from appliance.commands.output import print_fields, print_json
from appliance.manifests.errors import ManifestError
from appliance.manifests.inspection import Inspection, inspect, own_keys
from appliance.manifests.verify import LIMITS
from appliance.sync.bundles import opened, read_key
from appliance.wire.command import ExitCode, Invocation
from appliance.wire.home import Home

if TYPE_CHECKING:
    from appliance.security.signing import PublicKey

_ENVELOPE_SUFFIX: Final = ".dsse.json"
_LINES_SUFFIX: Final = ".ndjson"
_WHOSE_KEY: Final = (
    "That the key is really the site's or the control plane's: compare its fingerprint with them"
    " by another way."
)


@click.command()
@click.argument("file")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="PUB",
    help="A public key (PEM) of the site or its control plane; may be given more than once."
    " Without it those that this home knows.",
)
@click.option("--lines", metavar="FILE", help="The lines (NDJSON) of a single manifest.")
@click.pass_context
def verify(ctx: click.Context, file: str, keys: tuple[str, ...], lines: str | None) -> None:
    """Verify a proof, a manifest, a bundle, a receipt or any other signed FILE, offline.

    Exit code 0 only when all of it verified with a key that was given or is known; 6 when not.
    """
    invocation: Invocation = ctx.obj
    path = Path(absolute(file))
    trusted = [read_key(Path(absolute(key))) for key in keys] or _known_keys(invocation.home)
    raw_lines = _read_lines(path, lines)
    with opened(path) as content:
        shown = [] if trusted else own_keys(content)
        if not trusted and not shown:
            raise Refused(
                "no_key",
                f"{file} cannot be verified without a public key.",
                next_step="Give the site's or the control plane's with --key PUB.",
                exit_code=ExitCode.USAGE,
            )
        try:
            found = inspect(content, trusted or shown, raw_lines)
        except ManifestError as error:
            _print_defect(invocation, file, error)
            ctx.exit(ExitCode.DAMAGED)
    if not trusted:
        _print_unproven(invocation, file, found)
        ctx.exit(ExitCode.USAGE)
    _print_found(invocation, file, found)


def _known_keys(home: Home) -> "list[PublicKey]":
    """The keys that this home knows: its own, and its control plane's. Empty without a home."""
    if not home.ledger_file.exists():
        return []
    from appliance.commands.books import reading  # noqa: PLC0415 (loads SQLite's library)
    from appliance.sync.site_keys import known_keys  # noqa: PLC0415 (the same)

    with reading(home) as connection:
        return known_keys(connection)


def _read_lines(path: Path, lines: str | None) -> bytes | None:
    """The lines that are named, or those that lie beside the manifest as in an unpacked bundle."""
    if lines is not None:
        beside = Path(absolute(lines))
    elif path.name.endswith(_ENVELOPE_SUFFIX):
        beside = path.with_name(path.name.removesuffix(_ENVELOPE_SUFFIX) + _LINES_SUFFIX)
        if not beside.exists():
            return None
    else:
        return None
    with opened(beside) as file:
        return file.read(LIMITS.lines_bytes + 1)


def _print_found(invocation: Invocation, file: str, found: Inspection) -> None:
    if invocation.json:
        proven = {"proves": list(found.words.proven)}
        print_json({"ok": True, "file": file, **_object(found), **proven})
        return
    click.echo(f"VERIFIED: {file} is {_a(found.kind)}. {found.words.summary}\n")
    print_fields([*found.facts, ("signed_by", list(found.signed_by))])
    for title, sentences in (
        ("What this proves", found.words.proven),
        ("What it does not prove", (*found.words.not_proven, _WHOSE_KEY)),
    ):
        click.echo(f"\n{title}:")
        for sentence in sentences:
            click.echo(f"- {sentence}")


def _print_unproven(invocation: Invocation, file: str, found: Inspection) -> None:
    message = (
        "It holds together by itself, and that is all that can be said: it was checked with the key"
        " that it brings along, which anybody could have made."
    )
    step = "Give the site's public key with --key PUB to know who signed it."
    if invocation.json:
        error = {"code": "no_key", "message": message, "next_step": step}
        print_json(
            {"ok": False, "consistent": True, "file": file, **_object(found), "error": error}
        )
        return
    click.echo(f"NOT VERIFIED: {file} is {_a(found.kind)}. {message} {step}\n")
    print_fields(found.facts)


def _print_defect(invocation: Invocation, file: str, error: ManifestError) -> None:
    if invocation.json:
        told = {"code": error.code, "message": error.message, "next_step": error.next_step}
        print_json({"ok": False, "consistent": False, "file": file, "error": told})
        return
    click.echo(f"NOT VERIFIED: {file}: {error}")


def _a(kind: str) -> str:
    return kind if kind == "plans" else f"{'an' if kind[0] in 'aeio' else 'a'} {kind}"


def _object(found: Inspection) -> dict[str, Any]:
    evidence = {"evidence": dict(found.evidence)} if found.evidence else {}
    return {
        "kind": found.kind,
        "summary": found.words.summary,
        "signed_by": list(found.signed_by),
        "facts": dict(found.facts),
        **evidence,
        "does_not_prove": [*found.words.not_proven, _WHOSE_KEY],
    }
