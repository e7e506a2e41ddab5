"""`cic model catalogue|pack|import|gc`: models that are known, carried in, and given up."""

import re
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from appliance.commands.client import AdminClient
from appliance.commands.context import Refused, absolute
from appliance.commands.output import (
    Column,
    fields_of,
    print_fields,
    print_json,
    print_rows,
    progress,
)
from appliance.modelpacks.catalogue import catalogue, find_entry, view
from appliance.modelpacks.errors import PackNotWritten
from appliance.modelpacks.index import LICENCE_BYTES_MAX, Golden, PackIndex
from appliance.modelpacks.packing import About, find_licence, make_pack
from appliance.registry.weights import GGUF, look_at
from appliance.security.signing import PublicKey, SigningKey, ensure_signing_key, load_signing_key
from appliance.wire.admin_message import Message
from appliance.wire.command import CommandError, ExitCode, Invocation
from appliance.wire.fleet import Model
from appliance.wire.home import Home
from appliance.wire.models import (
    CatalogueModel,
    PackBring,
    PackCopying,
    PackLookAt,
    PackSeen,
    StoreSweep,
    StoreSwept,
)

# Copying goes on for as long as the slowest stick takes.
_COPY_TIMEOUT_S: Final = 24 * 3_600.0
_LOOK_EVERY_S: Final = 0.5
_UNFIT: Final = re.compile(r"[^A-Za-z0-9._:-]+")


class Packed(Message, frozen=True):
    """What `pack` says of the file it wrote."""

    file: str
    name: str
    version: str
    digest: str
    size_bytes: int
    files: int
    licence: str
    publisher: str  # id of the key that signed it
    publisher_key: str  # that key


@click.command("catalogue")
@click.pass_obj
def list_catalogue(invocation: Invocation) -> None:
    """Models that are known to run well, with memory, licence and settings.

    Memory is for bfloat16 and one request of the full context on one GPU.
    """
    rows = [view(entry) for entry in catalogue(invocation.home.models)]
    if invocation.json:
        print_json(rows)
    else:
        print_rows(rows, _COLUMNS, "The catalogue is empty.")


@click.command("pack")
@click.argument("path")
@click.option("--out", required=True, metavar="FILE", help="The pack to write: NAME.modelpack.")
@click.option("--name", help="The model's name on the sites. Default: the entry's or the folder's.")
@click.option("--version", default="", help="Of the model, as the sites shall tell it apart.")
@click.option("--catalogue", "entry", metavar="NAME", help="Take facts from this catalogue entry.")
@click.option("--family", default="", help="For people: llama, qwen, …")
@click.option("--licence", default="", help="The licence's name. Default: the entry's.")
@click.option("--licence-file", help="Its text. Default: the LICENSE beside the model.")
@click.option("--minimum-driver", default="", metavar="VERSION", help="Of the GPUs, as 550.54.")
@click.option("--golden-prompt", help="Asked after each load on the sites.")
@click.option("--golden-answer", default="", help="What the answer must contain.")
@click.option("--key", metavar="FILE", help="The secret that signs. Default: this home's own.")
@click.pass_obj
def pack_model(
    invocation: Invocation,
    path: str,
    out: str,
    name: str | None,
    version: str,
    entry: str | None,
    family: str,
    licence: str,
    licence_file: str | None,
    minimum_driver: str,
    golden_prompt: str | None,
    golden_answer: str,
    key: str | None,
) -> None:
    """Put a model into one signed file that is carried to sites.

    PATH is a .gguf file, or a folder with one or with safetensors. The key's id is printed: tell
    it to the sites on another way than the pack.
    """
    if golden_answer and not golden_prompt:
        raise click.UsageError("--golden-answer needs --golden-prompt.")
    source = look_at(Path(absolute(path)))
    known = None if entry is None else find_entry(catalogue(invocation.home.models), entry)
    stem = source.path.name.removesuffix(GGUF)
    about = About(
        name=name or (known.name if known else _UNFIT.sub("-", stem).strip("._:-")),
        created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        version=version,
        family=family or (known.family if known else ""),
        licence=licence or (known.licence if known else ""),
        licence_text=_licence_text(source.folder, licence_file),
        minimum_driver=minimum_driver or (known.minimum_driver if known else ""),
        gpu_memory_bytes=known.gpu_memory_bytes if known else None,
        settings=tuple(known.settings.items()) if known else (),
        golden=None if not golden_prompt else Golden(golden_prompt, golden_answer),
    )
    signer = _signing_key(invocation.home, key)
    with progress(f"Packing {about.name} …") as tell:
        index = make_pack(
            source,
            about,
            signer,
            Path(absolute(out)),
            lambda done, total: tell(f"Packing {about.name}: {_percent(done, total)}"),
        )
    _print_packed(invocation, index, signer.public, absolute(out))


@click.command("import")
@click.argument("file")
@click.option("--name", help="The model's name on this site. Default: the pack's.")
@click.option("--accept-licence", is_flag=True, help="Accept its licence for this site, once.")
@click.option(
    "--publisher", metavar="ID", help="Trust this key (64 hex digits) from now on, if it signed."
)
@click.pass_obj
def import_pack(
    invocation: Invocation,
    file: str,
    name: str | None,
    *,
    accept_licence: bool,
    publisher: str | None,
) -> None:
    """Bring a model pack into the site's store and register its model.

    What an interrupted import had copied is gone on with: type the same again.
    """
    path = absolute(file)
    with AdminClient(invocation.home) as client:
        seen = client.send("POST", "/v1/models/packs/look", PackSeen, PackLookAt(path=path))
        if not seen.publisher_trusted and publisher is None:
            publisher = _ask_publisher(invocation, seen)
        if not (seen.licence_accepted or accept_licence):
            accept_licence = _ask_licence(invocation, seen)
    body = PackBring(
        path=path,
        name=name,
        publisher=publisher,
        licence_sha256=seen.licence_sha256 if accept_licence else None,
    )
    item = _bring(invocation.home, body, seen)
    if invocation.json:
        print_json(item)
    else:
        print_fields(fields_of(item))


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@click.pass_obj
def sweep_store(invocation: Invocation, *, dry_run: bool) -> None:
    """Remove from the store what no registered model needs."""
    with AdminClient(invocation.home, timeout_s=_COPY_TIMEOUT_S) as client:
        body = StoreSweep(dry_run=dry_run)
        swept = client.send("POST", "/v1/models/gc", StoreSwept, body)
    if invocation.json:
        print_json(swept)
        return
    would = "Would remove" if dry_run else "Removed"
    click.echo(f"{would} {len(swept.models)} models, {swept.freed_bytes:,} bytes.")
    for digest in swept.models:
        click.echo(digest)


def _bring(home: Home, body: PackBring, seen: PackSeen) -> Model:
    """Wait for the import in a thread, and meanwhile ask how far it is."""
    results: list[Model] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with AdminClient(home, timeout_s=_COPY_TIMEOUT_S) as client:
                results.append(client.send("POST", "/v1/models/packs", Model, body))
        # Raised again in the thread that waits.
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    with progress(f"Importing {seen.name} …") as tell, AdminClient(home) as client:
        thread.start()
        while thread.is_alive():
            thread.join(_LOOK_EVERY_S)
            if not thread.is_alive():
                break
            copying = client.get("/v1/models/packs/copying", PackCopying)
            if copying.model:
                tell(f"Importing {copying.model}: {_copied(copying)}")
    if failures:
        raise failures[0]
    return results[0]


def _ask_publisher(invocation: Invocation, seen: PackSeen) -> str:
    if invocation.json or not sys.stdin.isatty():
        raise Refused(
            "publisher_unknown",
            f"The pack is signed with the key {seen.publisher}, which this site does not trust.",
            next_step="Compare it with what the publisher told you on another way, then add"
            f" --publisher {seen.publisher}; the site remembers it.",
            exit_code=ExitCode.CONFLICT,
        )
    click.echo(f"This pack is signed with the key\n  {seen.publisher}\nnew to this site.", err=True)
    if not click.confirm("Did its publisher tell you this very key on another way?", err=True):
        raise CommandError("Nothing was imported.")
    return seen.publisher


def _ask_licence(invocation: Invocation, seen: PackSeen) -> bool:
    if not invocation.json:
        click.echo(f"Licence of {seen.name}: {_plain(seen.licence)}\n", err=True)
        click.echo(_plain(seen.licence_text), err=True)
    if invocation.json or not sys.stdin.isatty():
        raise Refused(
            "licence_not_accepted",
            f"The licence {seen.licence!r} of {seen.name} was not accepted for this site yet.",
            next_step="Read it (LICENSE in the pack, shown without --json), then add"
            " --accept-licence. That is asked once.",
            exit_code=ExitCode.CONFLICT,
        )
    if not click.confirm("Accept this licence for this site?", err=True):
        raise CommandError("Nothing was imported.")
    return True


def _signing_key(home: Home, file: str | None) -> SigningKey:
    if file is not None:
        return load_signing_key(Path(absolute(file)))
    try:
        home.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ensure_signing_key(home.pack_key_file)
    except OSError as error:
        raise PackNotWritten(
            f"Cannot keep a key in {home.secrets}: {error.strerror}.",
            next_step="Run it as the owner of the home, or name a key with --key.",
        ) from error


def _licence_text(folder: Path, file: str | None) -> bytes:
    try:
        if file is None:
            return find_licence(folder)
        text = Path(absolute(file)).read_bytes()
    except OSError as error:
        raise PackNotWritten(
            f"Cannot read the licence: {error}.", next_step="Check the path."
        ) from error
    if not 0 < len(text) <= LICENCE_BYTES_MAX:
        raise PackNotWritten(
            "The licence's file is empty or too large.",
            next_step=f"Give a text of at most {LICENCE_BYTES_MAX:,} bytes.",
        )
    return text


def _print_packed(invocation: Invocation, index: PackIndex, publisher: PublicKey, out: str) -> None:
    packed = Packed(
        file=out,
        name=index.name,
        version=index.version,
        digest=index.digest,
        size_bytes=index.size_bytes,
        files=len(index.files),
        licence="" if index.licence is None else index.licence.name,
        publisher=publisher.key_id,
        publisher_key=publisher.pem,
    )
    if invocation.json:
        print_json(packed)
    else:
        print_fields(fields_of(packed, omit=("publisher_key",)))


def _plain(text: str) -> str:
    """A licence comes from elsewhere: it does not command this terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _percent(done: int, total: int) -> str:
    return f"{100 * done // max(total, 1)} %"


def _copied(copying: PackCopying) -> str:
    text = f"{_gib(copying.done_bytes)} of {_gib(copying.total_bytes)}"
    if copying.resumed_bytes:
        text += f", {_gib(copying.resumed_bytes)} of it were there"
    return text


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**3:.1f} GiB"


def _vllm_gpus(row: CatalogueModel) -> int | None:
    return row.settings["vllm"].gpus if "vllm" in row.settings else None


def _tool_parser(row: CatalogueModel) -> str | None:
    return row.settings["vllm"].tool_call_parser if "vllm" in row.settings else None


def _prices(row: CatalogueModel) -> str | None:
    if row.input_price_micros is None or row.output_price_micros is None:
        return None
    return f"${row.input_price_micros / 1e6:.2f}/{row.output_price_micros / 1e6:.2f}"


_COLUMNS: Final[tuple[Column[CatalogueModel], ...]] = (
    Column("NAME", lambda row: row.name),
    Column("FAMILY", lambda row: row.family),
    Column("CONTEXT", lambda row: row.context_tokens, right=True),
    Column("GPU MEMORY", lambda row: _gib(row.gpu_memory_bytes), right=True),
    Column("GPUS (VLLM)", _vllm_gpus, right=True),
    Column("TOOL PARSER", _tool_parser),
    Column("LICENCE", lambda row: row.licence),
    Column("PRICE IN/OUT", _prices, right=True),
)
