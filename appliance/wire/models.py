"""Model packs and the catalogue in the admin API."""

from appliance.wire.admin_message import Message
from appliance.wire.agent import EngineKind
from appliance.wire.engine import EngineSettings


class CatalogueModel(Message, frozen=True):
    """A model that is known to run well. Memory: bfloat16, one request of the full context."""

    name: str
    title: str
    family: str
    architecture: str
    context_tokens: int
    licence: str
    parameters: int
    weights_bytes: int
    cache_bytes_per_token: int
    gpu_memory_bytes: int
    input_price_micros: int | None  # suggested, in dollars, for a million tokens
    output_price_micros: int | None
    engines: list[str]
    settings: dict[EngineKind, EngineSettings]
    minimum_driver: str


class PackLookAt(Message, frozen=True):
    path: str


class PackSeen(Message, frozen=True):
    """What a pack says of itself, its signature verified, and how the site stands to it."""

    name: str
    version: str
    family: str
    architecture: str
    context_tokens: int | None
    digest: str
    size_bytes: int
    files: int
    licence: str  # "": none is stated
    licence_text: str
    licence_sha256: str  # what is accepted: name and text
    licence_accepted: bool
    publisher: str  # id of the key that signed it
    publisher_trusted: bool
    minimum_driver: str
    golden: bool  # it brings a prompt that is asked after each load


class PackBring(Message, frozen=True):
    """`publisher` and `licence_sha256` say which key is trusted and which licence accepted."""

    path: str
    name: str | None = None
    publisher: str | None = None
    licence_sha256: str | None = None


class PackCopying(Message, frozen=True):
    """How far the import under way is."""

    model: str  # "": there is none
    done_bytes: int
    total_bytes: int
    resumed_bytes: int  # that an earlier attempt, or another model, had brought


class StoreSweep(Message, frozen=True):
    dry_run: bool = False


class StoreSwept(Message, frozen=True):
    """Models (digests) and bytes that were removed, or would be."""

    models: list[str]
    freed_bytes: int
    dry_run: bool
