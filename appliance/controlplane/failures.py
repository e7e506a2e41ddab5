"""How errors leave over HTTP: the only place that knows their status."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import web

from appliance.controlplane.errors import TooManyRequests
from appliance.domain.errors import CrossLogicError

log = logging.getLogger(__name__)

_STATUS: Final = {
    "bad_upload": 400,
    "bad_bundle": 400,
    "bad_stripe_event": 400,
    "invalid_value": 400,
    "bad_price_book": 400,
    "bad_amount": 400,
    "unknown_plan": 400,
    "request_refused": 401,
    "operator_denied": 401,
    "enrolment_refused": 403,
    "unknown_site": 404,
    "unknown_object": 404,
    "unknown_customer": 404,
    "unknown_tenant": 404,
    "unknown_capacity": 404,
    "nothing_held": 404,
    "site_exists": 409,
    "not_possible": 409,
    "customer_exists": 409,
    "already_billed": 409,
    "upload_too_large": 413,
    "bundle_too_large": 413,
    "too_many_requests": 429,
    "stripe_not_configured": 503,
    "database_unavailable": 503,
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What the handler answers, or the answer that its error is."""
    try:
        return await handler(request)
    except CrossLogicError as error:
        status = _STATUS.get(error.code, 500)
        level = logging.ERROR if status >= 500 else logging.INFO
        fields = {"code": error.code, "status": status, "path": request.path}
        log.log(level, "request refused", extra={**fields, "reason": error.message})
        headers = {}
        if isinstance(error, TooManyRequests):
            headers["Retry-After"] = str(error.retry_after_s)
        return _answer(status, error.code, error.message, error.next_step, headers)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        phrase = HTTPStatus(error.status).phrase
        return _answer(error.status, "http_error", f"{phrase}.", "", {})
    # The last resort of a server: the defect is told in the log and to nobody outside.
    except Exception:
        log.exception("request failed", extra={"path": request.path})
        return _answer(500, "internal_error", "The control plane failed.", "Ask again later.", {})


def _answer(
    status: int, code: str, message: str, next_step: str, headers: dict[str, str]
) -> web.Response:
    body = {"error": {"code": code, "message": message, "next_step": next_step}}
    return web.json_response(body, status=status, headers=headers)
