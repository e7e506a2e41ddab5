"""The catalogue of known models, and model packs that lie on this host's media."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from appliance.wire.models import CatalogueModel, PackLookAt, PackSeen
from console.actions import Action
from console.cells import Cell, Column, Row
from console.client import AdminError, decoded
from console.screens.model_actions import import_pack, sweep
from console.view import View
from console.widgets.dialogs import TextDialog
from console.widgets.live_table import LiveTable
from console.widgets.panel import Panel
from console.words import count, or_missing, plural, size

_SUFFIX: Final = ".modelpack"
# Where media are mounted, and where an administrator puts files.
_PLACES: Final = ("/media", "/run/media", "/mnt", "/srv", "/var/tmp", "~", ".")  # noqa: S108 (read)
_DEPTH: Final = 3
_FOLDERS_MAX: Final = 2_000
_CATALOGUE: Final = (
    Column("name", "MODEL", 18, grow=True),
    Column("parameters", "PARAMS", 6, right=True),
    Column("weights", "WEIGHTS", 7, right=True),
    Column("memory", "GPU MEM", 7, right=True),
    Column("context", "CONTEXT", 7, right=True, priority=2),
    Column("licence", "LICENCE", 14, priority=2),
    Column("engines", "ENGINES", 16, priority=3),
    Column("family", "FAMILY", 8, priority=4),
)
_PACKS: Final = (
    Column("name", "PACK", 24, grow=True),
    Column("size", "SIZE", 5, right=True),
    Column("folder", "FOLDER", 30, priority=2),
)
_LOOK_S: Final = 600.0  # a pack of many files on a slow stick


@dataclass(frozen=True, slots=True)
class PackFile:
    path: str
    size_bytes: int


def find_packs(places: Sequence[str], *, folders_max: int = _FOLDERS_MAX) -> list[PackFile]:
    """Packs in these folders and a little below. Blocks. What cannot be read is passed over."""
    found: dict[str, PackFile] = {}
    left = folders_max
    waiting = [(os.path.expanduser(place), 0) for place in places]  # noqa: PTH111 (scandir's words)
    while waiting and left > 0:
        folder, depth = waiting.pop(0)
        left -= 1
        for entry in _entries(folder):
            try:
                if entry.is_dir(follow_symlinks=False):
                    if depth < _DEPTH and not entry.name.startswith("."):
                        waiting.append((entry.path, depth + 1))
                elif entry.name.endswith(_SUFFIX) and entry.is_file():
                    path = os.path.realpath(entry.path)
                    found[path] = PackFile(path, entry.stat().st_size)
            except OSError:  # it went away, or is not ours to see
                continue
    return sorted(found.values(), key=lambda pack: pack.path)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from list(entries)
    except OSError:  # not there, or not ours to see
        return


class PacksView(View):
    """The catalogue above, packs that were found below. Enter looks into one."""

    DEFAULT_CSS: ClassVar[str] = """
    PacksView #packs { height: 2fr; }
    PacksView #catalogue { height: 3fr; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.title = "catalogue and packs"
        self._known: dict[str, CatalogueModel] = {}
        self._packs = LiveTable(
            _PACKS,
            lambda _id, row: [
                Cell(str(row["name"])),
                Cell(size(row["size_bytes"])),
                Cell(str(row["folder"]), "dim"),
            ],
            sort_key=lambda _id, row, column: row.get("size_bytes" if column == "size" else column),
            sort_by="name",
            empty="Looking for packs…",
        )
        self._catalogue = LiveTable(
            _CATALOGUE,
            _catalogue_cells,
            sort_key=_catalogue_key,
            sort_by="name",
            empty="pending…",
        )

    def compose(self) -> ComposeResult:
        yield Panel("1 Packs on this host", self._packs, id="packs")
        yield Panel("2 Catalogue", self._catalogue, id="catalogue")

    def home(self) -> Widget | None:
        return self._packs

    def shown(self) -> None:
        self.load(self._read_catalogue(), name="catalogue")
        self.load(self._find(), name="packs")

    async def _find(self) -> None:
        packs = await asyncio.to_thread(find_packs, _PLACES)
        self._packs.say_empty("No *.modelpack under /media, /mnt, /srv or here. I asks for a path.")
        self._packs.replace(
            {
                pack.path: {
                    "name": Path(pack.path).name,
                    "folder": str(Path(pack.path).parent),
                    "path": pack.path,
                    "size_bytes": pack.size_bytes,
                }
                for pack in packs
            }
        )
        self.panel("#packs").entitle(
            f"1 Packs on this host {len(packs)}", Cell("Enter looks into one", "dim")
        )
        self.selection_changed()

    async def _read_catalogue(self) -> None:
        models = await self.admin.get("/v1/models/catalogue", list[CatalogueModel])
        self._known = {model.name: model for model in models}
        self._catalogue.say_empty("The catalogue is empty.")
        self._catalogue.replace({name: msgspec.to_builtins(m) for name, m in self._known.items()})
        self.panel("#catalogue").entitle(f"2 Catalogue {len(models)}")

    def actions(self) -> Sequence[Action]:
        path = self._packs.current if self._packs.has_focus else None
        return (import_pack(path or ""), sweep())

    def subject(self) -> Any:
        table = self._catalogue if self._catalogue.has_focus else self._packs
        return [table.row(row_id) for row_id in table.shown]

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self.selection_changed()

    def on_descendant_focus(self) -> None:
        self.selection_changed()

    @on(LiveTable.Opened)
    async def _opened(self, event: LiveTable.Opened) -> None:
        if event.table is self._packs:
            await self.console.open(PackView(event.row_id))
            return
        model = self._known.get(event.row_id)
        if model is not None:
            self.console.push_screen(TextDialog(model.title, catalogue_text(model)))


class PackView(View):
    """A pack as it says of itself, its signature verified; its licence to be read."""

    DEFAULT_CSS: ClassVar[str] = """
    PackView #facts { height: auto; max-height: 13; }
    PackView #facts Static { height: auto; }
    PackView #licence { height: 1fr; }
    PackView VerticalScroll { height: 1fr; }
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.title = Path(path).name
        self._path = path
        self._seen: PackSeen | None = None
        self._facts = Static("  Verifying its signature: pending…")
        self._licence = Static("")
        self._scroll = VerticalScroll(self._licence)

    def compose(self) -> ComposeResult:
        yield Panel("Pack", self._facts, id="facts")
        yield Panel("Licence", self._scroll, id="licence")

    def home(self) -> Widget | None:
        return self._scroll

    def shown(self) -> None:
        self.load(self._look())

    async def _look(self) -> None:
        body = PackLookAt(path=self._path)
        try:
            lines = self.admin.lines(
                "/v1/models/packs/look", method="POST", body=body, silence_s=_LOOK_S
            )
            pieces = [line async for line in lines]
        except AdminError as error:
            self._facts.update(Text(f"  ✖ {error.sentence}"))
            return
        self._seen = seen = decoded(b"\n".join(pieces), PackSeen)
        self._facts.update(Text(pack_text(seen)))
        self._licence.update(Text(_plain(seen.licence_text)))
        note = (
            Cell("accepted", "good") if seen.licence_accepted else Cell("not accepted yet", "warn")
        )
        self.panel("#licence").entitle(f"Licence {seen.licence or 'not stated'}", note)
        self.selection_changed()

    def actions(self) -> Sequence[Action]:
        seen = self._seen
        if seen is None:
            return ()
        publisher = "" if seen.publisher_trusted else seen.publisher
        licence = "" if seen.licence_accepted else seen.licence or "not stated"
        return (import_pack(self._path, publisher, licence),)

    def subject(self) -> Any:
        return None if self._seen is None else msgspec.to_builtins(self._seen)


def pack_text(seen: PackSeen) -> str:
    trusted = "trusted by this site" if seen.publisher_trusted else "▲ not trusted by this site yet"
    facts = {
        "model": f"{seen.name} {seen.version}".rstrip(),
        "size": f"{size(seen.size_bytes)} in {plural(seen.files, 'file')}",
        "family": f"{seen.family} {seen.architecture}".strip(),
        "context": f"{count(seen.context_tokens)} tokens",
        "driver": f"{seen.minimum_driver} at least" if seen.minimum_driver else "any",
        "golden": "a prompt is asked after each load" if seen.golden else "no prompt is asked",
        "sha-256": seen.digest.removeprefix("sha256:"),
        "signer": trusted,
        "its key": seen.publisher,
    }
    return "\n".join(f"  {name:<9}{or_missing(value)}" for name, value in facts.items())


def catalogue_text(model: CatalogueModel) -> str:
    prices = "–"
    if model.input_price_micros is not None and model.output_price_micros is not None:
        prices = f"${model.input_price_micros / 1e6:.2f} in, ${model.output_price_micros / 1e6:.2f}"
        prices += " out, for a million tokens"
    lines = [
        f"{'name':<22}{model.name}",
        f"{'family':<22}{model.family} ({model.architecture})",
        f"{'licence':<22}{model.licence}",
        f"{'parameters':<22}{count(model.parameters)}",
        f"{'weights':<22}{size(model.weights_bytes)}",
        f"{'cache of a token':<22}{size(model.cache_bytes_per_token)}",
        f"{'GPU memory':<22}{size(model.gpu_memory_bytes)}, with one request of full context",
        f"{'context':<22}{count(model.context_tokens)} tokens",
        f"{'least driver':<22}{or_missing(model.minimum_driver)}",
        f"{'suggested price':<22}{prices}",
    ]
    for engine, settings in model.settings.items():
        told = {
            name: value
            for name, value in msgspec.to_builtins(settings).items()
            if value not in (None, "", [], (), False)
        }
        shown = ", ".join(f"{name}={value}" for name, value in told.items())
        lines.append(f"{engine:<22}{shown}")
    return "\n".join(lines)


def _catalogue_cells(_row_id: str, row: Row) -> list[Cell]:
    return [
        Cell(str(row["name"])),
        Cell(count(row["parameters"])),
        Cell(size(row["weights_bytes"])),
        Cell(size(row["gpu_memory_bytes"])),
        Cell(count(row["context_tokens"])),
        Cell(str(row["licence"])),
        Cell(" ".join(row["engines"]), "dim"),
        Cell(str(row["family"]), "dim"),
    ]


def _catalogue_key(_row_id: str, row: Row, column: str) -> Any:
    names = {
        "weights": "weights_bytes",
        "memory": "gpu_memory_bytes",
        "context": "context_tokens",
    }
    value = row[names.get(column, column)]
    return " ".join(value) if isinstance(value, list) else value


def _plain(text: str) -> str:
    """A licence comes from elsewhere: it does not command this terminal."""
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text)
