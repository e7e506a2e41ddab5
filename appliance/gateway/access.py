"""Who calls, and what the caller may use. Pure: tables in, a credential or an error out."""

from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from multidict import MultiMapping

from appliance.gateway.errors import (
    DeploymentSuspended,
    EnvironmentSuspended,
    Family,
    InvalidApiKey,
    KeySuspended,
    ModelNotAllowed,
    ModelNotFound,
    ReadOnlyKey,
    RegionNotAllowed,
    TenantSuspended,
    UnsupportedOperation,
)
from appliance.gateway.routes import Route
from appliance.registry.snapshot import Credential, DeploymentEntry, Role, Snapshot
from appliance.security.api_keys import well_formed

_INVALID: Final = "The API key is missing or not valid."
_NEXT_STEP: Final = "Send it as 'Authorization: Bearer clsk_…'."
_BEARER: Final = "bearer "
_SHOWN_CHARS_MAX: Final = 200


class KeyRing:
    """The keys of a snapshot, found by their text.

    The checksum and the slow keyed hash of the registry are worked out once for a key; after that a
    quick keyed hash with a secret of this process finds it. The text itself is not kept.
    """

    __slots__ = ("_digest", "_found", "_secret", "_snapshot")

    def __init__(self, snapshot: Snapshot, digest: Callable[[str], bytes], secret: bytes) -> None:
        self._snapshot = snapshot
        self._digest = digest
        self._secret = secret
        self._found: dict[bytes, Credential] = {}

    def find(self, key: str) -> Credential | None:
        quick = blake2b(key.encode("utf-8", "replace"), key=self._secret, digest_size=32).digest()
        caller = self._found.get(quick)
        if caller is None and well_formed(key):
            caller = self._snapshot.credentials.get(self._digest(key))
            if caller is not None:
                self._found[quick] = caller
        return caller


def authenticate(
    headers: MultiMapping[str], family: Family, keys: KeyRing, now_ns: int
) -> Credential:
    """The owner of the key in the request's head.

    A missing, mistyped, unknown and expired key get the same answer, so that it tells nothing.
    Raises InvalidApiKey, or what says who is suspended.
    """
    key = _key(headers, family)
    caller = None if key is None else keys.find(key)
    if caller is None or (caller.expires_at_ns is not None and caller.expires_at_ns <= now_ns):
        raise InvalidApiKey(_INVALID, next_step=_NEXT_STEP)
    if caller.tenant_suspended:
        raise TenantSuspended("This tenant is suspended.", next_step="Ask your administrator.")
    if caller.environment_suspended:
        raise EnvironmentSuspended(
            "This environment is suspended.", next_step="Ask your administrator."
        )
    if caller.key_suspended:
        raise KeySuspended("This API key is suspended.", next_step="Ask your administrator.")
    return caller


def _key(headers: MultiMapping[str], family: Family) -> str | None:
    """The one key of the head. None without one, or with two: whose request would it be?"""
    given = headers.getall("Authorization", ())
    if len(given) > 1:
        return None
    key = None
    if given:
        authorization = given[0]
        if authorization[: len(_BEARER)].lower() != _BEARER:
            return None
        key = authorization[len(_BEARER) :].strip()
    if family is Family.ANTHROPIC:
        given = headers.getall("x-api-key", ())
        if len(given) > 1 or (given and key is not None and given[0] != key):
            return None
        if given:
            key = given[0]
    return key


def may_run(caller: Credential) -> None:
    """Raise ReadOnlyKey unless this key may run models."""
    if caller.role is Role.READ_ONLY:
        raise ReadOnlyKey("This API key may look but not run anything.")


def deployment(caller: Credential, model: str, route: Route, snapshot: Snapshot) -> DeploymentEntry:
    """The deployment a request names, if this caller may use it and it does the operation."""
    entry = snapshot.deployments.get(model)
    shown = plain(model)
    if caller.models_allowed is not None and model not in caller.models_allowed:
        if entry is not None:
            raise ModelNotAllowed(
                f"This environment may not use the model '{shown}'.", param="model"
            )
        entry = None
    if entry is None:
        raise ModelNotFound(f"The model '{shown}' does not exist.", param="model")
    if entry.region != caller.region:
        raise RegionNotAllowed(
            f"The model '{model}' is not served in the region of this environment.", param="model"
        )
    if entry.suspended:
        raise DeploymentSuspended(f"The model '{model}' is suspended.")
    if route.operation not in entry.operations:
        has = ", ".join(sorted(entry.operations)) or "none"
        raise UnsupportedOperation(
            f"The deployment '{model}' does not do {route.operation}. It does: {has}."
        )
    return entry


def plain(name: str) -> str:
    """A name as it may stand in a message: it is the client's text."""
    return "".join(c for c in name[:_SHOWN_CHARS_MAX] if c.isprintable())


def visible(caller: Credential, snapshot: Snapshot) -> list[DeploymentEntry]:
    """The deployments this caller may use, by name."""
    allowed = caller.models_allowed
    return [
        entry
        for name, entry in sorted(snapshot.deployments.items())
        if not entry.suspended
        and entry.region == caller.region
        and (allowed is None or name in allowed)
    ]
