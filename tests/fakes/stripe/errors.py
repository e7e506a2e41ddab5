"""The refusals of the API, with the status and the fields that the SDK turns into exceptions.

Sources: the page "Errors" and the list "Error codes" of the API reference; which status becomes
which exception: `stripe/_api_requestor.py` (`specific_v1_api_error`, `specific_v2_api_error`).
"""

from typing import Any


class ApiError(Exception):
    """One refusal.

    `begun` tells whether the endpoint had started its work: only then does an idempotency key
    keep the answer (page "Idempotent requests").
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        begun: bool = True,
        retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.begun = begun
        self.retry = retry

    def body(self) -> dict[str, Any]:
        error: dict[str, Any] = {"type": self.kind, "message": self.message}
        if self.code is not None:
            error["code"] = self.code
            error["doc_url"] = "https://stripe.com/docs/error-codes/" + self.code.replace("_", "-")
        if self.param is not None:
            error["param"] = self.param
        return {"error": error}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Refused while it was carried out: HTTP 400."""
    return ApiError(400, message, code=code, param=param)


def malformed(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Refused for its parameters, before anything was begun: HTTP 400."""
    return ApiError(400, message, code=code, param=param, begun=False)


def missing(noun: str, object_id: str, param: str = "id", status: int = 404) -> ApiError:
    """No such object: 404 when it is named in the path, 400 when a parameter names it."""
    return ApiError(status, f"No such {noun}: '{object_id}'", code="resource_missing", param=param)


def not_simulated(what: str) -> ApiError:
    """The double says so loudly instead of answering something made up."""
    return ApiError(501, f"the double does not simulate {what}", kind="api_error", begun=False)
