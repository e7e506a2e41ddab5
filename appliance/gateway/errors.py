"""The errors of the gateway, and the only place that turns them into HTTP.

GatewayError
├── BadRequest                400 invalid_request_error
│   ├── ContextLengthExceeded     context_length_exceeded
│   ├── UnsupportedOperation      unsupported_operation
│   └── MalformedHttp             malformed_request
│       ├── HeadTooLarge      431 header_too_large
│       └── VersionNotSupported 505 http_version_not_supported
├── InvalidApiKey             401 invalid_api_key
├── Forbidden                 403
│   ├── TenantSuspended           tenant_suspended
│   ├── EnvironmentSuspended      environment_suspended
│   ├── KeySuspended              key_suspended
│   ├── ReadOnlyKey               key_read_only
│   ├── ModelNotAllowed           model_not_allowed
│   └── RegionNotAllowed          region_not_allowed
├── RouteNotFound             404 not_found
│   ├── ModelNotFound             model_not_found
│   └── UsageNotFound             usage_not_found
├── MethodNotAllowed          405 method_not_allowed
├── RequestTimeout            408 request_timeout
├── IdempotencyInProgress     409 idempotency_in_progress
├── NotSealedYet              409 not_sealed_yet
├── BodyTooLarge              413 body_too_large
├── UnsupportedMedia          415 unsupported_media_type
├── ExpectationFailed         417 expectation_failed
├── IdempotencyMismatch       422 idempotency_mismatch
├── RateLimitExceeded         429 rate_limit_exceeded
├── InsufficientQuota         429 insufficient_quota
├── ClientLeft                499 client_left (never sent: nobody is there)
├── InternalError             500 internal_error
├── EngineError               502 engine_error
├── Overloaded                503 overloaded
│   ├── ModelLoading              model_loading
│   ├── ModelUnavailable          model_unavailable
│   ├── DeploymentSuspended       deployment_suspended
│   ├── LedgerDown                ledger_unavailable
│   └── ShuttingDown              shutting_down
└── EngineTimeout             504 engine_timeout

A message says what the caller can do about it. None names a node, an address or another tenant.
"""

from enum import Enum, auto
from typing import ClassVar, Final

import msgspec

from appliance.domain.errors import CrossLogicError


class Family(Enum):
    """Whose error envelope a route answers in."""

    OPENAI = auto()
    ANTHROPIC = auto()


class GatewayError(CrossLogicError):
    """An answer that is not a success. `param` names the field of the request that is at fault."""

    code: ClassVar[str] = "gateway_error"
    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    closes: ClassVar[bool] = False  # the connection can not be used for another request

    def __init__(
        self,
        message: str,
        *,
        next_step: str = "",
        param: str | None = None,
        retry_after_s: int | None = None,
        headers: bytes = b"",
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers = headers  # more lines of the head, each with its CRLF


class BadRequest(GatewayError):
    code = "invalid_request_error"
    status = 400
    kind = "invalid_request_error"


class ContextLengthExceeded(BadRequest):
    code = "context_length_exceeded"


class UnsupportedOperation(BadRequest):
    code = "unsupported_operation"


class MalformedHttp(BadRequest):
    code = "malformed_request"
    closes = True


class VersionNotSupported(MalformedHttp):
    code = "http_version_not_supported"
    status = 505


class HeadTooLarge(MalformedHttp):
    code = "header_too_large"
    status = 431


class InvalidApiKey(GatewayError):
    code = "invalid_api_key"
    status = 401
    kind = "authentication_error"


class Forbidden(GatewayError):
    status = 403
    kind = "permission_error"


class TenantSuspended(Forbidden):
    code = "tenant_suspended"


class EnvironmentSuspended(Forbidden):
    code = "environment_suspended"


class KeySuspended(Forbidden):
    code = "key_suspended"


class ReadOnlyKey(Forbidden):
    code = "key_read_only"


class ModelNotAllowed(Forbidden):
    code = "model_not_allowed"


class RegionNotAllowed(Forbidden):
    code = "region_not_allowed"


class RouteNotFound(GatewayError):
    code = "not_found"
    status = 404
    kind = "invalid_request_error"


class ModelNotFound(RouteNotFound):
    code = "model_not_found"


class UsageNotFound(RouteNotFound):
    code = "usage_not_found"


class MethodNotAllowed(GatewayError):
    code = "method_not_allowed"
    status = 405
    kind = "invalid_request_error"


class RequestTimeout(GatewayError):
    code = "request_timeout"
    status = 408
    kind = "invalid_request_error"
    closes = True


class IdempotencyInProgress(GatewayError):
    code = "idempotency_in_progress"
    status = 409
    kind = "invalid_request_error"


class NotSealedYet(GatewayError):
    code = "not_sealed_yet"
    status = 409
    kind = "invalid_request_error"


class IdempotencyMismatch(GatewayError):
    code = "idempotency_mismatch"
    status = 422
    kind = "invalid_request_error"


class BodyTooLarge(GatewayError):
    code = "body_too_large"
    status = 413
    kind = "invalid_request_error"
    closes = True


class UnsupportedMedia(GatewayError):
    code = "unsupported_media_type"
    status = 415
    kind = "invalid_request_error"


class ExpectationFailed(GatewayError):
    code = "expectation_failed"
    status = 417
    kind = "invalid_request_error"


class RateLimitExceeded(GatewayError):
    code = "rate_limit_exceeded"
    status = 429
    kind = "rate_limit_error"


class InsufficientQuota(GatewayError):
    code = "insufficient_quota"
    status = 429
    kind = "insufficient_quota"


class ClientLeft(GatewayError):
    code = "client_left"
    status = 499


class InternalError(GatewayError):
    code = "internal_error"
    closes = True


class EngineError(GatewayError):
    code = "engine_error"
    status = 502


class Overloaded(GatewayError):
    code = "overloaded"
    status = 503
    kind = "overloaded_error"


class ModelLoading(Overloaded):
    code = "model_loading"


class ModelUnavailable(Overloaded):
    code = "model_unavailable"


class DeploymentSuspended(Overloaded):
    code = "deployment_suspended"


class LedgerDown(Overloaded):
    code = "ledger_unavailable"


class ShuttingDown(Overloaded):
    code = "shutting_down"
    closes = True


class EngineTimeout(GatewayError):
    code = "engine_timeout"
    status = 504
    kind = "timeout_error"


# Anthropic's statuses and types: docs.anthropic.com, "Errors". Those left out keep our status.
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_ANTHROPIC_OVERLOADED_STATUS: Final = 529


def http_status(error: GatewayError, family: Family) -> int:
    """The status this error is answered with."""
    if family is Family.ANTHROPIC and error.status == Overloaded.status:
        return _ANTHROPIC_OVERLOADED_STATUS
    return error.status


def envelope(error: GatewayError, family: Family, request_id: str) -> bytes:
    """The JSON body of an error answer."""
    if family is Family.ANTHROPIC:
        kind = _ANTHROPIC_TYPES.get(
            error.status, "invalid_request_error" if error.status < 500 else "api_error"
        )
        return msgspec.json.encode(
            {
                "type": "error",
                "error": {"type": kind, "message": str(error), "code": error.code},
                "request_id": request_id,
            }
        )
    return msgspec.json.encode(
        {
            "error": {
                "message": str(error),
                "type": error.kind,
                "param": error.param,
                "code": error.code,
            }
        }
    )


def headers(error: GatewayError) -> bytes:
    """Lines of the head that go with an error."""
    lines = error.headers
    if error.retry_after_s is not None:
        lines += b"Retry-After: %d\r\n" % error.retry_after_s
    if isinstance(error, InsufficientQuota):
        lines += b"x-should-retry: false\r\n"
    if isinstance(error, InvalidApiKey):
        lines += b"WWW-Authenticate: Bearer\r\n"
    return lines


def event(error: GatewayError, family: Family, request_id: str) -> bytes:
    """An error as the last event of a stream that has begun."""
    body = envelope(error, family, request_id)
    if family is Family.ANTHROPIC:
        return b"event: error\ndata: %b\n\n" % body
    return b"data: %b\n\n" % body
