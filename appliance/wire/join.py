"""How a machine becomes a node, and stays one. JSON bodies over TLS 1.3 to the node API.

GET  /node/v1/ca      the site's CA, PEM          nothing is shown and nothing trusted yet
POST /node/v1/join    JoinRequest   -> Joined     the CA is trusted, the token is the right
POST /node/v1/rejoin  RejoinRequest -> Joined     the certificate has expired, its key is the right
POST /node/v1/renew   RenewRequest  -> Joined     with the certificate (mutual TLS)
POST /node/v1/hello · /node/v1/heartbeat          as on the unix socket (`wire/agent.py`), likewise
"""

from hashlib import sha256
from typing import Final

import msgspec

TOKEN_PREFIX: Final = "clnt_"  # noqa: S105 - what every token begins with
REJOIN_SKEW_S: Final = 300  # between the clocks of a node that rejoins and the appliance


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`token_id` and `secret` are the first two parts of the token; the third never travels.

    `node_name` "": the token's, else one made of `host_name` that is free.
    """

    token_id: str
    secret: str
    node_name: str = ""
    host_name: str
    csr_pem: str


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True):
    csr_pem: str


class RejoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`signature` is base64 of ECDSA/SHA-256, by the old certificate's key, of `rejoin_text`."""

    certificate_pem: str
    csr_pem: str
    at_s: int  # Unix time
    signature: str


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What a node keeps of its joining."""

    node_id: str
    node_name: str
    site: str
    certificate_pem: str
    ca_pem: str


def rejoin_text(csr_pem: str, at_s: int) -> bytes:
    """What the holder of an expired certificate signs: for this request alone, at this time."""
    digest = sha256(csr_pem.encode()).hexdigest()
    return f"crosslogic-rejoin-v1\n{digest}\n{at_s}\n".encode()


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token taken apart. Raises ValueError from `parse_token` when it is none."""

    token_id: str
    secret: str
    ca_sha256: str


def parse_token(text: str) -> Token:
    """`clnt_<id>.<secret>.<64 hex digits>`. Raises ValueError."""
    parts = text.strip().removeprefix(TOKEN_PREFIX).split(".")
    if not text.strip().startswith(TOKEN_PREFIX) or len(parts) != 3 or not all(parts):
        raise ValueError("not in the form clnt_….….…")
    identifier, secret, digest = parts
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise ValueError("its last part is not a SHA-256")
    return Token(token_id=identifier, secret=secret, ca_sha256=digest)
