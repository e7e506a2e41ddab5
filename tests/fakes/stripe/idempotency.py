"""Idempotency keys: the first answer again, whatever it was.

Sources: page "Idempotent requests" of the API reference. v1: a key keeps the status and body of
the first request that began, also of a 500, for at least 24 hours; other parameters are an error;
what fails validation, or runs into another request, is not kept. Page "API v2 overview": there a
failed request is carried out anew, and keys are kept for 30 days.
"""

import hashlib
import json
from typing import Any

from tests.fakes.stripe.account import Account
from tests.fakes.stripe.errors import ApiError

KEPT_V1_S = 86_400
KEPT_V2_S = 30 * 86_400
KEY_MAX = 255


class IdempotencyKeys:
    """The keys of one account, which remembers them; those under way are remembered here."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._under_way: set[str] = set()

    def begin(self, key: str, method: str, path: str, given: Any) -> tuple[int, str] | None:
        """The stored answer, or None when the request is new and now under way."""
        if len(key) > KEY_MAX:
            raise ApiError(400, "Idempotency keys are at most 255 characters long.", begun=False)
        if key in self._under_way:
            raise ApiError(
                409,
                f"There is currently another in-progress request using this key ({key}).",
                kind="idempotency_error",
                code="idempotency_key_in_use",
                begun=False,
            )
        kept = self._account.keys.get(key)
        now = self._account.clock.now_s()
        if kept is not None and kept["until"] > now:
            if kept["request"] != self._digest(method, path, given):
                raise ApiError(
                    400,
                    "Keys for idempotent requests can only be used with the same parameters they "
                    "were first used with.",
                    kind="idempotency_error",
                    begun=False,
                )
            return kept["status"], kept["body"]
        self._under_way.add(key)
        return None

    def end(self, key: str) -> None:
        """The request is no longer under way."""
        self._under_way.discard(key)

    def keep(self, key: str, method: str, path: str, given: Any, status: int, body: str) -> None:
        v2 = path.startswith("/v2/")
        if v2 and status >= 400:
            return
        self._account.keys[key] = {
            "request": self._digest(method, path, given),
            "status": status,
            "body": body,
            "until": self._account.clock.now_s() + (KEPT_V2_S if v2 else KEPT_V1_S),
        }

    @staticmethod
    def _digest(method: str, path: str, given: Any) -> str:
        text = json.dumps([method, path, given], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()
