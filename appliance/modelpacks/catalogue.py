"""The catalogue: models that are known to run well, and those a site adds to it.

A site's own entries stand in `models/catalogue.toml` of its home, in the same form as ours; one of
the same name stands in place of ours.
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from appliance.modelpacks.errors import BadCatalogue, NoSuchEntry
from appliance.wire.agent import EngineKind
from appliance.wire.engine import EngineSettings
from appliance.wire.models import CatalogueModel

OWN: Final = "catalogue.toml"
OWN_BYTES_MAX: Final = 4 * 1024 * 1024
# Of one GPU, for what an engine needs beside weights and cache: its context, graphs, activations.
OVERHEAD_BYTES: Final = 2 * 1024**3
_WEIGHT_BYTES: Final = 2  # of a parameter, in bfloat16
_CACHE_BYTES: Final = 2  # of a value in the KV cache


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is looked up of a model before it is bought room for."""

    name: str
    title: str = ""
    family: str
    architecture: str
    context_tokens: int
    licence: str
    parameters: int
    layers: int
    kv_heads: int
    head_size: int
    input_price: int | None = None  # micro-units of a dollar for a million tokens
    output_price: int | None = None
    settings: dict[EngineKind, EngineSettings] = {}
    minimum_driver: str = ""

    @property
    def weights_bytes(self) -> int:
        return self.parameters * _WEIGHT_BYTES

    @property
    def cache_bytes_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_size * _CACHE_BYTES

    @property
    def gpu_memory_bytes(self) -> int:
        """For one request of the full context, in bfloat16, on one GPU."""
        cache = self.cache_bytes_per_token * self.context_tokens
        return self.weights_bytes + cache + OVERHEAD_BYTES


class _File(msgspec.Struct, forbid_unknown_fields=True):
    model: list[Entry] = []


def catalogue(models: Path | None = None) -> tuple[Entry, ...]:
    """By name; with the site's own when `models`, its folder, is given. Raises BadCatalogue."""
    ours = resources.files("appliance.modelpacks").joinpath(OWN).read_bytes()
    entries = {entry.name: entry for entry in _parse(ours, OWN)}
    if models is not None:
        entries |= {entry.name: entry for entry in _own(models / OWN)}
    return tuple(entries[name] for name in sorted(entries))


def find_entry(entries: Sequence[Entry], name: str) -> Entry:
    """Raises NoSuchEntry."""
    for entry in entries:
        if entry.name == name:
            return entry
    raise NoSuchEntry(
        f"The catalogue has no model {name!r}.", next_step="See `cic model catalogue`."
    )


def view(entry: Entry) -> CatalogueModel:
    return CatalogueModel(
        name=entry.name,
        title=entry.title or entry.name,
        family=entry.family,
        architecture=entry.architecture,
        context_tokens=entry.context_tokens,
        licence=entry.licence,
        parameters=entry.parameters,
        weights_bytes=entry.weights_bytes,
        cache_bytes_per_token=entry.cache_bytes_per_token,
        gpu_memory_bytes=entry.gpu_memory_bytes,
        input_price_micros=entry.input_price,
        output_price_micros=entry.output_price,
        engines=sorted(["llamacpp", *entry.settings]),
        settings=entry.settings,
        minimum_driver=entry.minimum_driver,
    )


def _own(path: Path) -> list[Entry]:
    try:
        if path.stat().st_size > OWN_BYTES_MAX:
            raise BadCatalogue(f"{path} is larger than any catalogue.")
        return _parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadCatalogue(
            f"Cannot read {path}: {error.strerror}.",
            next_step="Check that this account may read it.",
        ) from error


def _parse(raw: bytes, what: str) -> list[Entry]:
    try:
        return msgspec.toml.decode(raw, type=_File).model
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadCatalogue(
            f"{what} is not understood: {error}.",
            next_step="docs/MODELS.md shows the form of an entry.",
        ) from error
