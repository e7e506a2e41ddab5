"""The name under which a partner sells the appliance: one signed file, and how it is read.

The file is a DSSE envelope (manifests/envelope.py) of a Brand, signed with an Ed25519 key. A site
names the file and the public key of who may have signed it in its settings; neither is fetched.
"""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import msgspec

from appliance.domain.errors import CrossLogicError
from appliance.manifests import envelope as dsse
from appliance.manifests.canonical import Reader, encode
from appliance.manifests.errors import ManifestError
from appliance.security.errors import SecurityError
from appliance.security.signing import PEM_BYTES_MAX, PublicKey, SigningKey
from appliance.settings import Gateway, Settings

log = logging.getLogger(__name__)
PAYLOAD_TYPE: Final = "application/vnd.crosslogic.branding.v1+json"
BYTES_MAX: Final = 16 * 1024
# Printable, none of it a control or a bidirectional override.
_LINE: Final = r"^[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]*$"
_AGAIN: Final = "Take the file and the public key anew from who sold you the appliance."


class BadBranding(CrossLogicError):
    code = "bad_branding"


class Brand(msgspec.Struct, frozen=True, kw_only=True):
    """What a partner may put in the product's place. "" leaves what the product has."""

    product: Annotated[str, msgspec.Meta(min_length=1, max_length=24, pattern=_LINE)]
    owner: Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")] = ""
    support: Annotated[str, msgspec.Meta(max_length=120, pattern=_LINE)] = ""
    accent: Annotated[str, msgspec.Meta(pattern=r"^(#[0-9a-f]{6})?$")] = ""
    made_at: Annotated[str, msgspec.Meta(max_length=40, pattern=_LINE)] = ""


_reader: Final = Reader(Brand)


def sign_brand(brand: Brand, key: SigningKey) -> bytes:
    """The file of a brand. Raises BadBranding where `brand` is none that a site would take."""
    payload = encode(brand)
    _read(payload)
    return dsse.sign(PAYLOAD_TYPE, payload, key).to_bytes()


def open_brand(raw: bytes, publisher: PublicKey) -> Brand:
    """The brand that `publisher` signed. Raises BadBranding; nothing is read before it verifies."""
    try:
        envelope = dsse.parse(raw, BYTES_MAX)
        dsse.verify(envelope, PAYLOAD_TYPE, {publisher.key_id: publisher})
    except ManifestError as error:
        raise BadBranding(f"The branding is not used: {error.message}", next_step=_AGAIN) from error
    return _read(envelope.payload)


def read_brand(file: str, publisher: str) -> Brand:
    """The same of two files: the signed one, and the PEM of the key that may sign it."""
    try:
        raw = _small(file, BYTES_MAX)
        key = PublicKey.from_pem(_small(publisher, PEM_BYTES_MAX))
    except OSError as error:
        raise BadBranding(
            f"{error.filename} cannot be read: {error.strerror}.",
            next_step="Check `branding.file` and `branding.publisher` in the settings.",
        ) from error
    except SecurityError as error:
        raise BadBranding(f"{publisher}: {error.message}", next_step=_AGAIN) from error
    return open_brand(raw, key)


def brand_of(settings: Settings) -> Brand | None:
    """What the settings name, if anything. A name is no reason not to serve: a branding that is
    not right is told and left out, and `cic doctor` says so again.
    """
    try:
        return named_brand(settings)
    except BadBranding as error:
        log.warning("branding left out", extra={"why": str(error)})
        return None


def named_brand(settings: Settings) -> Brand | None:
    """The same, but raises BadBranding."""
    file, publisher = settings.branding.file, settings.branding.publisher
    if file is None and publisher is None:
        return None
    if file is None or publisher is None:
        raise BadBranding(
            "A branding needs both its file and the key of who signed it.",
            next_step="Give `branding.file` and `branding.publisher`, or neither.",
        )
    return read_brand(file, publisher)


def with_brand(settings: Settings) -> Settings:
    """The brand's owner in `/v1/models`, unless the site chose its own."""
    if settings.gateway.owned_by != Gateway().owned_by:
        return settings
    with suppress(BadBranding):  # told where the brand itself is taken
        brand = named_brand(settings)
        if brand is not None and brand.owner:
            gateway = msgspec.structs.replace(settings.gateway, owned_by=brand.owner)
            return msgspec.structs.replace(settings, gateway=gateway)
    return settings


def _small(path: str, bytes_max: int) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(bytes_max + 1)


def _read(payload: bytes) -> Brand:
    try:
        brand: Brand = _reader.read(payload)
    except ManifestError as error:
        raise BadBranding(f"The branding is no such: {error.message}", next_step=_AGAIN) from error
    return brand
