"""The signed index of a model pack: what is in it, and what is known of the model."""

import hashlib
from typing import Final, Literal

import msgspec

from appliance.manifests import envelope as dsse
from appliance.manifests.errors import BadDocument, ManifestError
from appliance.modelpacks.errors import BadPack, PackForged
from appliance.registry.weights import digest_of
from appliance.security.signing import PublicKey, SigningKey
from appliance.wire.agent import EngineKind, ModelFile
from appliance.wire.engine import EngineSettings
from appliance.wire.model_store import BadModelFiles, check_files

PAYLOAD_TYPE: Final = "application/vnd.crosslogic.model-pack.v1+json"
FORMAT: Final = "crosslogic-model-pack-1"
INDEX_BYTES_MAX: Final = 16 * 1024 * 1024
LICENCE_BYTES_MAX: Final = 1024 * 1024
TEXT_CHARS_MAX: Final = 200
GOLDEN_CHARS_MAX: Final = 4_096
FIGURE_MAX: Final = 2**53  # what every reader of JSON takes for the same number

AGAIN: Final = "Get the pack again from who made it; nothing of this copy was kept."


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asked once the model is loaded. `answer` must be in what it says; "": any token will do."""

    prompt: str
    answer: str = ""


class Licence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`size_bytes` 0: the pack has its name alone."""

    name: str
    sha256: str
    size_bytes: int

    @property
    def acceptance_sha256(self) -> str:
        """What is noted as accepted: this name with this text."""
        return hashlib.sha256(f"{self.name}\n{self.sha256}".encode()).hexdigest()


class PackIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: Literal["crosslogic-model-pack-1"] = FORMAT
    name: str
    version: str = ""
    family: str = ""
    architecture: str
    context_tokens: int | None = None
    digest: str
    entry: str  # what engines open: "" the folder of the files, else the file's name
    files: tuple[ModelFile, ...]
    licence: Licence | None = None  # None: none is stated
    minimum_driver: str = ""  # of the GPUs, as "550.54"
    gpu_memory_bytes: int | None = None
    settings: dict[EngineKind, EngineSettings] = {}  # for deployments that say nothing else
    golden: Golden | None = None
    created_at: str

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def sign_index(index: PackIndex, key: SigningKey) -> bytes:
    """The envelope as it stands in the pack."""
    return dsse.sign(PAYLOAD_TYPE, msgspec.json.encode(index), key).to_bytes()


def open_index(raw: bytes, publisher: PublicKey) -> PackIndex:
    """The index that `publisher` signed. Raises BadPack, PackForged."""
    try:
        envelope = dsse.parse(raw, INDEX_BYTES_MAX)
        dsse.verify(envelope, PAYLOAD_TYPE, {publisher.key_id: publisher})
    except BadDocument as error:
        raise BadPack(f"This is no model pack: {error.message}", next_step=AGAIN) from error
    except ManifestError as error:
        raise PackForged(
            f"The pack's index is not signed by the key that it brings: {error.message}",
            next_step=AGAIN,
        ) from error
    try:
        index = msgspec.json.decode(envelope.payload, type=PackIndex)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadPack(
            f"The pack's index is not understood: {error}.",
            next_step="A newer version of the appliance may understand it.",
        ) from error
    check_index(index)
    return index


def check_index(index: PackIndex) -> None:
    """That its parts fit together and nothing in it leaves its folder. Raises BadPack."""
    try:
        check_files(index.files)
    except BadModelFiles as error:
        raise BadPack(f"The pack's list of files is refused: {error}.", next_step=AGAIN) from error
    names = [file.name for file in index.files]
    if index.entry and names != [index.entry]:
        raise BadPack("The pack does not have the file it says to open.", next_step=AGAIN)
    if digest_of(index.files, index.entry) != index.digest:
        raise BadPack("The pack's digest is not that of its files.", next_step=AGAIN)
    texts = [index.name, index.version, index.family, index.architecture, index.minimum_driver]
    texts.append(index.created_at)
    if index.licence is not None:
        texts.append(index.licence.name)
        if not 0 <= index.licence.size_bytes <= LICENCE_BYTES_MAX:
            raise BadPack("The pack's licence is longer than any that is known.", next_step=AGAIN)
    if any(len(text) > TEXT_CHARS_MAX or not (text.isprintable() or not text) for text in texts):
        raise BadPack("A text in the pack's index is no line of text.", next_step=AGAIN)
    golden = index.golden
    if golden is not None and not (
        0 < len(golden.prompt) <= GOLDEN_CHARS_MAX and len(golden.answer) <= GOLDEN_CHARS_MAX
    ):
        raise BadPack("The pack's golden prompt is empty or too long.", next_step=AGAIN)
    for figure in (index.context_tokens, index.gpu_memory_bytes):
        if figure is not None and not 0 < figure <= FIGURE_MAX:
            raise BadPack("A figure in the pack's index cannot be.", next_step=AGAIN)
