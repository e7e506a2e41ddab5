"""The operator API: what operators may ask over HTTP, as a list of routes that `app.py` mounts.

A handler gets the call taken apart and gives a value that is encoded as JSON. It runs in a thread.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from appliance.controlplane import authority, enrolment, evidence, sites
from appliance.controlplane.errors import BadUpload
from appliance.controlplane.licences import Terms
from appliance.controlplane.service import ControlPlane
from appliance.controlplane.site_view import SiteView, view
from appliance.domain.clock import iso

T = TypeVar("T")
ACTOR: Final = "operator API"


@dataclass(frozen=True, slots=True)
class OperatorCall:
    """A request that showed the operator's token."""

    plane: ControlPlane
    parts: Mapping[str, str]  # of the path
    query: Mapping[str, str]
    body: bytes

    def json(self, kind: type[T]) -> T:
        """The body. Raises BadUpload."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadUpload(
                f"The body is not understood: {error}.", next_step="Correct it and send it again."
            ) from error


@dataclass(frozen=True, slots=True)
class OperatorRoute:
    method: str
    path: str  # below /v1/operator
    handle: Callable[[OperatorCall], Any]


class _Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str


class _Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str
    request: str = ""  # the site's signed request for a new key


class _Revoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key_id: str
    reason: str


class _NewCode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    terms: Terms
    ttl_s: int = enrolment.TTL_S


def _list(call: OperatorCall) -> list[SiteView]:
    now_ns = call.plane.clock.wall_ns()
    return call.plane.database.read(
        lambda connection: [view(connection, site, now_ns) for site in sites.every(connection)]
    )


def _show(call: OperatorCall) -> SiteView:
    now_ns = call.plane.clock.wall_ns()
    return call.plane.database.read(
        lambda connection: view(connection, sites.find(connection, call.parts["site"]), now_ns)
    )


def _freeze(call: OperatorCall) -> SiteView:
    reason, act = call.json(_Reason).reason, call.plane.act(ACTOR)
    call.plane.database.transact(
        lambda connection: authority.freeze(connection, act, call.parts["site"], reason)
    )
    return _show(call)


def _unfreeze(call: OperatorCall) -> SiteView:
    reason, act = call.json(_Reason).reason, call.plane.act(ACTOR)
    call.plane.database.transact(
        lambda connection: authority.unfreeze(connection, act, call.parts["site"], reason)
    )
    return _show(call)


def _grant(call: OperatorCall) -> Any:
    asked, act, site = call.json(_Grant), call.plane.act(ACTOR), call.parts["site"]
    return call.plane.database.transact(
        lambda connection: authority.grant_epoch(
            connection,
            act,
            site,
            authority.requested_key(connection, site, asked.request.encode())
            if asked.request
            else None,
            asked.reason,
        )
    )


def _revoke(call: OperatorCall) -> Any:
    asked, act, site = call.json(_Revoke), call.plane.act(ACTOR), call.parts["site"]
    return call.plane.database.transact(
        lambda connection: authority.revoke_key(
            connection, act, site, asked.key_id, None, asked.reason
        )
    )


def _new_code(call: OperatorCall) -> dict[str, str]:
    asked, act = call.json(_NewCode), call.plane.act(ACTOR)
    code = call.plane.database.transact(
        lambda connection: enrolment.make_code(
            connection, act, asked.name, asked.terms, asked.ttl_s
        )
    )
    return {"code": code.text, "expires": iso(code.expires_at_ns)}


def _evidence(call: OperatorCall) -> list[dict[str, Any]]:
    site = call.query.get("site")
    return call.plane.database.read(
        lambda connection: [
            dict(row)
            for row in evidence.listed(
                connection, sites.find(connection, site).appliance_id if site else None
            )
        ]
    )


SITE_ROUTES: Final = (
    OperatorRoute("GET", "/sites", _list),
    OperatorRoute("GET", "/sites/{site}", _show),
    OperatorRoute("POST", "/sites/{site}/freeze", _freeze),
    OperatorRoute("POST", "/sites/{site}/unfreeze", _unfreeze),
    OperatorRoute("POST", "/sites/{site}/epochs", _grant),
    OperatorRoute("POST", "/sites/{site}/revocations", _revoke),
    OperatorRoute("POST", "/enrolments", _new_code),
    OperatorRoute("GET", "/evidence", _evidence),
)
