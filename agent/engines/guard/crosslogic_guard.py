"""The door of a vLLM server: it lets nobody in without the key, and nobody to what is not served.

vLLM loads this class by its `--middleware` option into its own process, so it uses nothing beside
the standard library. vLLM's own key guards /v1 and a few more paths; its metrics, its state and,
where sleep needs the development mode, calls into its processes are open to every account of the
node. Here a path that is not listed does not exist, and each but the health question needs the key.
"""

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

KEY_VARIABLE = "CROSSLOGIC_ENGINE_API_KEY"
OPEN_PATHS = frozenset({"/health", "/ping"})
SERVED_PATHS = frozenset(
    {"/metrics", "/load", "/version", "/tokenize", "/detokenize", "/pooling", "/classify", "/score"}
    | {"/rerank", "/sleep", "/wake_up", "/is_sleeping"}
)
SERVED_PREFIXES = ("/v1/", "/v2/")
# Adapters are settings of a deployment: a request cannot load one.
REFUSED_PATHS = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware."""

    def __init__(self, app: Application) -> None:
        """Raises KeyError without a key: a server that nothing guards does not start."""
        self._app = app
        self._key = f"Bearer {os.environ[KEY_VARIABLE]}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        status = self._refusal(scope)
        if status is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _refuse(send, status)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, scope: Scope) -> int | None:
        """The status a request is refused with; None: it may pass."""
        path = scope["path"]
        if path in OPEN_PATHS:
            return None
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, self._key):
            return 401
        served = path in SERVED_PATHS or path.startswith(SERVED_PREFIXES)
        return None if served and path not in REFUSED_PATHS else 404


async def _refuse(send: Send, status: int) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})
