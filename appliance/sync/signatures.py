"""How a site shows the control plane who asks, where there is no manifest to speak for itself.

`Authorization: CrossLogic-Ed25519 <appliance>:<unix seconds>:<nonce>:<signature>`, the signature
over `METHOD\\npath?query\\nseconds\\nnonce`, base64url. The control plane takes it within 300 s of
its own clock, and each nonce once.
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Final

from appliance.security.signing import SigningKey

SCHEME: Final = "CrossLogic-Ed25519"
_NONCE_BYTES: Final = 16


def authorization(
    *,
    method: str,
    target: str,
    appliance_id: str,
    wall_ns: int,
    key: SigningKey,
    entropy: Callable[[int], bytes],
) -> str:
    """The value of the header. `target` is the path with its query."""
    seconds = wall_ns // 1_000_000_000
    nonce = entropy(_NONCE_BYTES).hex()
    signature = key.sign(signed_bytes(method, target, seconds, nonce))
    told = urlsafe_b64encode(signature).decode().rstrip("=")
    return f"{SCHEME} {appliance_id}:{seconds}:{nonce}:{told}"


def signed_bytes(method: str, target: str, seconds: int, nonce: str) -> bytes:
    return f"{method}\n{target}\n{seconds}\n{nonce}".encode()
