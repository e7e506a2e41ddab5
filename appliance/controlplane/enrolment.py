"""How sites come to be known: by a one-time code, by a signed request, or by their public key.

- A code is `clxe_<id>.<secret>.<pin>`. The pin is the beginning of our signing key's id: the site
  compares it with the key we show before it tells the secret. Only the secret's hash is kept.
- A code registers one site. The same site may use it again, because an answer may be lost.
- A site's id follows from its first key, so nobody can register another's id.
"""

import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

import msgspec
from sqlalchemy import Connection, insert, select, update

from appliance.controlplane import audit, licences, receipts, sites
from appliance.controlplane.errors import EnrolmentRefused, SiteExists
from appliance.controlplane.licences import Terms
from appliance.controlplane.site_tables import ENROLMENT_CODES, SITE_KEYS, SITES
from appliance.controlplane.sites import Site
from appliance.manifests.documents import Enrolment, Entitlement
from appliance.manifests.errors import ManifestError
from appliance.manifests.keys import open_enrolment
from appliance.security.signing import PublicKey, SigningKey

CODE_PREFIX: Final = "clxe_"
PIN_HEX: Final = 32
TTL_S: Final = 7 * 86_400
_SECRET_BYTES: Final = 24
_CODE_ID_BYTES: Final = 8
_ID_DIGITS: Final = 24
_NAME_CHARS_MAX: Final = 100
_REFUSED: Final = "Ask the vendor for a new code: `cic control-plane enroll NAME`."


@dataclass(frozen=True, slots=True)
class Code:
    """A new code; its `text` is shown once and kept nowhere."""

    code_id: str
    text: str = field(repr=False)
    expires_at_ns: int


@dataclass(frozen=True, slots=True)
class Act:
    """Who does something, when, and with what: of everything that an operator does."""

    actor: str
    now_ns: int
    key: SigningKey = field(repr=False)
    entropy: Callable[[int], bytes] = field(repr=False)


def appliance_id_of(key: PublicKey) -> str:
    """The id of the site whose first key this is."""
    return f"apl_{key.key_id[:_ID_DIGITS]}"


def make_code(connection: Connection, act: Act, name: str, terms: Terms, ttl_s: int) -> Code:
    """A code for a site that will be called `name`. Raises SiteExists."""
    _check_name(connection, name)
    code_id = act.entropy(_CODE_ID_BYTES).hex()
    secret = act.entropy(_SECRET_BYTES).hex()
    expires_at_ns = act.now_ns + ttl_s * 1_000_000_000
    connection.execute(
        insert(ENROLMENT_CODES).values(
            code_id=code_id,
            secret_sha256=sha256(secret.encode()).hexdigest(),
            name=name,
            terms=msgspec.json.encode(terms).decode(),
            made_at_ns=act.now_ns,
            expires_at_ns=expires_at_ns,
        )
    )
    after = json.dumps({"code_id": code_id, "customer": terms.customer})
    _note(connection, act, "enrol", "", name, after)
    pin = act.key.key_id[:PIN_HEX]
    return Code(code_id, f"{CODE_PREFIX}{code_id}.{secret}.{pin}", expires_at_ns)


def enrol_with_code(connection: Connection, act: Act, code: str, enrolment: bytes) -> Site:
    """Register the site that shows `<id>.<secret>` and a signed introduction.

    Raises EnrolmentRefused, which does not tell what was wrong with the code.
    """
    code_id, _, secret = code.partition(".")
    if not (code.isascii() and code.isprintable()):
        code_id = secret = ""
    row = connection.execute(
        select(ENROLMENT_CODES).where(ENROLMENT_CODES.c.code_id == code_id).with_for_update()
    ).one_or_none()
    given = sha256(secret.encode()).hexdigest()
    if row is None or not hmac.compare_digest(given, row.secret_sha256):
        raise EnrolmentRefused("The enrolment code is not valid.", next_step=_REFUSED)
    document, key = _introduction(enrolment)
    if document.code_id not in {"", code_id}:
        raise EnrolmentRefused(
            "The introduction was signed for another code.", next_step="Enrol the site again."
        )
    if row.used_at_ns is not None:
        site = sites.read(connection, row.appliance_id)
        if site is not None and site.known.keys[0].key == key:
            return site  # it asks again because the answer was lost
        raise EnrolmentRefused("The enrolment code was used before.", next_step=_REFUSED)
    if act.now_ns >= row.expires_at_ns:
        raise EnrolmentRefused("The enrolment code is too old.", next_step=_REFUSED)
    terms = msgspec.json.decode(row.terms, type=Terms)
    site = register(connection, act, row.name, key, terms)
    connection.execute(
        update(ENROLMENT_CODES)
        .where(ENROLMENT_CODES.c.code_id == code_id, ENROLMENT_CODES.c.used_at_ns.is_(None))
        .values(used_at_ns=act.now_ns, appliance_id=site.appliance_id)
    )
    return site


def enrol_by_hand(
    connection: Connection, act: Act, name: str, terms: Terms, enrolment: bytes
) -> Site:
    """Register the site whose signed introduction an operator holds in hand."""
    document, key = _introduction(enrolment)
    if document.epoch != 1:
        raise EnrolmentRefused(
            "The request is for a new epoch of a site that is known already.",
            next_step="Use `cic control-plane grant-epoch SITE --request FILE`.",
        )
    return register(connection, act, name, key, terms)


def register(connection: Connection, act: Act, name: str, key: PublicKey, terms: Terms) -> Site:
    """Make the site and its first entitlement. Raises SiteExists."""
    _check_name(connection, name)
    if _is_known(connection, key):
        raise SiteExists(
            f"The site {appliance_id_of(key)} is enrolled already.",
            next_step="See `cic control-plane sites list`. A restored copy needs an epoch grant:"
            " `cic control-plane grant-epoch SITE`.",
        )
    site = sites.insert_site(
        connection,
        appliance_id=appliance_id_of(key),
        name=name,
        customer=terms.customer,
        key=key,
        lease_days=terms.lease_days,
        now_ns=act.now_ns,
    )
    licences.issue(connection, site, terms, act.key, act.now_ns, act.entropy)
    receipts.state_of_things(connection, site, act.key, act.now_ns, act.entropy, renew=True)
    after = json.dumps({"key_id": key.key_id, "customer": terms.customer})
    _note(connection, act, "register", site.appliance_id, name, after)
    return site


def change(
    connection: Connection, act: Act, reference: str, name: str | None, lease_days: int | None
) -> Site:
    """Give a site another name or longer leases. Raises UnknownSite, SiteExists."""
    site = sites.find(connection, reference, lock=True)
    if name is not None and name != site.name:
        _check_name(connection, name)
    changed = replace(site, name=name or site.name, lease_days=lease_days or site.lease_days)
    sites.store_terms(connection, changed)
    before = json.dumps({"name": site.name, "lease_days": site.lease_days})
    after = json.dumps({"name": changed.name, "lease_days": changed.lease_days})
    _note(connection, act, "set", site.appliance_id, changed.name, after, before)
    return changed


def license_again(connection: Connection, act: Act, site: Site, terms: Terms) -> Entitlement:
    """Sign another entitlement for a locked site."""
    issued = licences.issue(connection, site, terms, act.key, act.now_ns, act.entropy)
    after = msgspec.json.encode(terms).decode()
    _note(connection, act, "entitle", site.appliance_id, site.name, after)
    return issued


def _introduction(raw: bytes) -> tuple[Enrolment, PublicKey]:
    try:
        document, key = open_enrolment(raw)
    except ManifestError as error:
        raise EnrolmentRefused(
            f"The site's introduction cannot be verified: {error.message}",
            next_step="Make it again on the site: `cic sync request --out FILE`.",
        ) from error
    if document.epoch == 1 and document.appliance_id != appliance_id_of(key):
        raise EnrolmentRefused(
            "The site's id does not belong to the key that it shows.",
            next_step="Make the request with the site's first key.",
        )
    return document, key


def _is_known(connection: Connection, key: PublicKey) -> bool:
    of_key = select(SITE_KEYS.c.key_id).where(SITE_KEYS.c.key_id == key.key_id).limit(1)
    of_id = select(SITES.c.name).where(SITES.c.appliance_id == appliance_id_of(key))
    return any(connection.execute(query).first() is not None for query in (of_key, of_id))


def _check_name(connection: Connection, name: str) -> None:
    # It is printed, logged and part of the names of files.
    if not (name.isprintable() and name.strip() == name and 0 < len(name) <= _NAME_CHARS_MAX):
        raise EnrolmentRefused(
            "This is no name for a site.",
            next_step=f"Use 1 to {_NAME_CHARS_MAX} printable characters.",
        )
    taken = connection.execute(select(SITES.c.appliance_id).where(SITES.c.name == name)).first()
    if taken is not None or name.startswith("apl_"):
        raise SiteExists(
            f"There is a site '{name}' already.", next_step="Choose another name for this one."
        )


def _note(
    connection: Connection,
    act: Act,
    action: str,
    object_id: str,
    name: str,
    after: str,
    before: str | None = None,
) -> None:
    audit.record(
        connection,
        act.now_ns,
        actor=act.actor,
        action=action,
        kind="site",
        object_id=object_id,
        name=name,
        before=before,
        after=after,
    )
