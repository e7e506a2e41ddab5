"""Who asks, where no manifest speaks for itself: requests that a site signs.

`Authorization: CrossLogic-Ed25519 <appliance>:<unix seconds>:<nonce hex>:<base64url signature>`,
the signature over `METHOD\\npath?query\\nseconds\\nnonce`. Taken within 300 s of our clock, each
nonce once. A revoked key is told apart: who holds it learns only that, and what follows.
"""

import re
from base64 import urlsafe_b64decode
from binascii import Error as NotBase64
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from appliance.controlplane import sites
from appliance.controlplane.errors import RequestRefused
from appliance.controlplane.site_tables import NONCES
from appliance.controlplane.sites import Site

SCHEME: Final = "CrossLogic-Ed25519"
WINDOW_S: Final = 300
_SECOND_NS: Final = 1_000_000_000
_FORM: Final = re.compile(
    rf"{SCHEME} (apl_[0-9a-f]{{24}}):([0-9]{{1,12}}):([0-9a-f]{{16,64}}):([A-Za-z0-9_-]{{86}})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Signed:
    """The header taken apart, and what was signed."""

    appliance_id: str
    seconds: int
    nonce: str
    signature: bytes
    message: bytes


@dataclass(frozen=True, slots=True)
class Caller:
    site: Site
    revoked: bool  # the key that signed is one that was revoked


def read_header(method: str, target: str, header: str) -> Signed:
    """Raises RequestRefused."""
    match = _FORM.fullmatch(header)
    if match is None:
        raise _refused("The request is not signed.")
    appliance_id, seconds, nonce, encoded = match.groups()
    try:
        signature = urlsafe_b64decode(encoded + "==")
    except NotBase64 as error:
        raise _refused("The request's signature is not readable.") from error
    message = f"{method}\n{target}\n{seconds}\n{nonce}".encode("utf-8", "surrogateescape")
    return Signed(appliance_id, int(seconds), nonce, signature, message)


def recognise(connection: Connection, signed: Signed, now_ns: int) -> Caller:
    """The site that signed; reads only. Raises RequestRefused."""
    now_s = now_ns // _SECOND_NS
    if abs(now_s - signed.seconds) > WINDOW_S:
        raise _refused(
            f"The request's time is {abs(now_s - signed.seconds)} s from ours.",
            "Set the site's clock: requests are taken within 300 s.",
        )
    site = sites.read(connection, signed.appliance_id)
    # One answer for an unknown site and a wrong signature: ids are not to be tried out.
    signer = None
    for known in site.known.keys if site is not None else ():
        if known.key.verify(signed.signature, signed.message):
            signer = known
    if site is None or signer is None:
        raise _refused("The request is not signed with a key of this site.")
    return Caller(site, signer.revoked is not None)


def admit(connection: Connection, signed: Signed, now_ns: int) -> Caller:
    """The site that signed, whose nonce is remembered with this. Raises RequestRefused."""
    caller = recognise(connection, signed, now_ns)
    connection.execute(delete(NONCES).where(NONCES.c.expires_at_ns < now_ns))
    used = connection.execute(
        select(NONCES.c.nonce).where(
            NONCES.c.appliance_id == signed.appliance_id, NONCES.c.nonce == signed.nonce
        )
    ).first()
    if used is not None:
        raise _refused("The request was made before.")
    connection.execute(
        insert(NONCES).values(
            appliance_id=signed.appliance_id,
            nonce=signed.nonce,
            expires_at_ns=now_ns + 2 * WINDOW_S * _SECOND_NS,
        )
    )
    return caller


def _refused(message: str, next_step: str = "Ask again with a new signature.") -> RequestRefused:
    return RequestRefused(message, next_step=next_step)
