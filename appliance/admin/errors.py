"""Errors of the admin API, and the one place where a code of the product becomes an HTTP status.

AdminError
├── BadRequest      the request is not understood: its JSON, its query, a value
├── NoSuchRoute     no such path, or not with this method
├── NoSuchPass      no pass of that id, or it has ended
├── TooManyPasses   as many administrators ask models as may at once
├── NoSuchAlert     it has ended, or never was
├── TooManySubscribers  the live stream has as many readers as it may have
├── NotPermittedRole  the caller's role does not reach
├── KeyOfAnotherRequest  an Idempotency-Key that stands for something else
├── AnswerNotKept   the request under this key was carried out; its answer was too large to keep
├── NodeAway        a node that is not heard of, and cannot be asked
├── BadNodeAnswer   what a node answered cannot be read
├── SettingRefused  no such setting, or a value that it does not take
├── SettingsNotWritten  the file cannot be replaced, or was changed meanwhile
├── ChecksRunning   the health checks run for somebody else
├── SocketInUse     another process answers on the admin socket
└── ListenFailed    an address cannot be listened on
"""

from http import HTTPStatus
from typing import Final

from appliance.domain.errors import CrossLogicError
from appliance.wire.admin import ErrorBody


class AdminError(CrossLogicError):
    code = "admin_error"


class BadRequest(AdminError):
    code = "bad_request"


class NoSuchRoute(AdminError):
    code = "no_such_route"


class NoSuchAlert(AdminError):
    code = "no_such_alert"


class NoSuchPass(AdminError):
    code = "no_such_pass"


class TooManyPasses(AdminError):
    code = "too_many_passes"


class TooManySubscribers(AdminError):
    code = "too_many_subscribers"


class NotPermittedRole(AdminError):
    code = "not_permitted_role"


class KeyOfAnotherRequest(AdminError):
    code = "idempotency_key_reused"


class AnswerNotKept(AdminError):
    code = "answer_not_kept"


class NodeAway(AdminError):
    code = "node_away"


class BadNodeAnswer(AdminError):
    code = "bad_node_answer"


class SettingRefused(AdminError):
    code = "setting_refused"


class SettingsNotWritten(AdminError):
    code = "settings_not_written"


class ChecksRunning(AdminError):
    code = "checks_running"


class SocketInUse(AdminError):
    code = "socket_in_use"


class ListenFailed(AdminError):
    code = "listen_failed"


# Codes that are absent here are the appliance's own trouble: 500.
STATUSES: Final = {
    "bad_request": HTTPStatus.BAD_REQUEST,
    "invalid_value": HTTPStatus.BAD_REQUEST,
    "ambiguous_name": HTTPStatus.BAD_REQUEST,
    "setting_refused": HTTPStatus.BAD_REQUEST,
    "settings_not_written": HTTPStatus.CONFLICT,
    "checks_running": HTTPStatus.CONFLICT,
    "bad_settings": HTTPStatus.UNPROCESSABLE_ENTITY,
    "not_permitted_role": HTTPStatus.FORBIDDEN,
    "idempotency_key_reused": HTTPStatus.CONFLICT,
    "answer_not_kept": HTTPStatus.CONFLICT,
    "no_such_alert": HTTPStatus.NOT_FOUND,
    "no_such_pass": HTTPStatus.NOT_FOUND,
    "too_many_passes": HTTPStatus.SERVICE_UNAVAILABLE,
    "too_many_subscribers": HTTPStatus.SERVICE_UNAVAILABLE,
    "not_found": HTTPStatus.NOT_FOUND,
    "no_such_route": HTTPStatus.NOT_FOUND,
    "already_exists": HTTPStatus.CONFLICT,
    "capacity_exceeded": HTTPStatus.CONFLICT,
    "capacity_unknown": HTTPStatus.CONFLICT,
    "in_use": HTTPStatus.CONFLICT,
    "management_frozen": HTTPStatus.CONFLICT,
    "sync_offline": HTTPStatus.CONFLICT,
    "not_enrolled": HTTPStatus.CONFLICT,
    "control_plane_not_pinned": HTTPStatus.CONFLICT,
    "entitlement_refused": HTTPStatus.CONFLICT,
    "bad_enrolment_code": HTTPStatus.BAD_REQUEST,
    "bad_control_plane_url": HTTPStatus.BAD_REQUEST,
    "bad_public_key": HTTPStatus.BAD_REQUEST,
    "bad_document": HTTPStatus.UNPROCESSABLE_ENTITY,
    "bad_bundle": HTTPStatus.UNPROCESSABLE_ENTITY,
    "document_refused": HTTPStatus.UNPROCESSABLE_ENTITY,
    "signature_invalid": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unknown_signing_key": HTTPStatus.UNPROCESSABLE_ENTITY,
    "node_silent": HTTPStatus.BAD_GATEWAY,
    "node_away": HTTPStatus.BAD_GATEWAY,
    "bad_node_answer": HTTPStatus.BAD_GATEWAY,
    "control_plane_away": HTTPStatus.BAD_GATEWAY,
    "control_plane_refused": HTTPStatus.BAD_GATEWAY,
    "no_address": HTTPStatus.CONFLICT,
    "node_api_closed": HTTPStatus.CONFLICT,
    "bursts_off": HTTPStatus.CONFLICT,
    "no_offer": HTTPStatus.CONFLICT,
    "cloud_unavailable": HTTPStatus.BAD_GATEWAY,
    "cloud_refused": HTTPStatus.BAD_GATEWAY,
    "no_such_record": HTTPStatus.NOT_FOUND,
    "not_sealed_yet": HTTPStatus.CONFLICT,
    "no_such_manifest": HTTPStatus.NOT_FOUND,
    "chain_moved": HTTPStatus.CONFLICT,
    "manifest_key_unused": HTTPStatus.CONFLICT,
    "model_unreadable": HTTPStatus.UNPROCESSABLE_ENTITY,
    "bad_model_pack": HTTPStatus.UNPROCESSABLE_ENTITY,
    "model_pack_forged": HTTPStatus.UNPROCESSABLE_ENTITY,
    "bad_catalogue": HTTPStatus.UNPROCESSABLE_ENTITY,
    "publisher_unknown": HTTPStatus.CONFLICT,
    "licence_not_accepted": HTTPStatus.CONFLICT,
    "model_store_full": HTTPStatus.INSUFFICIENT_STORAGE,
    "backup_not_written": HTTPStatus.INSUFFICIENT_STORAGE,
    "ledger_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "ledger_closed": HTTPStatus.SERVICE_UNAVAILABLE,
    "database_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}


def status_of(error: CrossLogicError) -> HTTPStatus:
    return STATUSES.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)


def body_of(error: CrossLogicError) -> ErrorBody:
    return ErrorBody(code=error.code, message=error.message, next_step=error.next_step)
