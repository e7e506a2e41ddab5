"""Tokens and certificates of nodes in the admin API."""

import msgspec

from appliance.wire.admin_message import Message


class NodeTokenCreate(Message, frozen=True):
    """`address`: HOST or HOST:PORT under which nodes reach this host; null: found out."""

    ttl_s: int = 3_600
    node: str | None = None
    address: str | None = None


class NodeListener(Message, frozen=True):
    """Where the node API listens on this host. `opened`: it does since this token."""

    address: str  # HOST:PORT; 0.0.0.0 is every address of the host
    opened: bool


class NodeTokenCreated(Message, frozen=True):
    """`token` cannot be shown again. `command` is what to type on the node."""

    id: str
    token: str
    server: str
    command: str
    ca_sha256: str
    node: str | None
    expires_at: str
    listener: NodeListener
    secret_shown: bool | msgspec.UnsetType = msgspec.UNSET  # true: given again, both are ""


class NodeToken(Message, frozen=True):
    id: str
    node: str | None  # it is bound to
    state: str  # unused, used, expired, revoked
    created_at: str
    created_by: str
    expires_at: str
    used_at: str | None
    used_by: str | None  # the node's name


class NodeCertificate(Message, frozen=True):
    serial: str
    node: str
    state: str  # good, expired, revoked
    issued_at: str
    expires_at: str
    revoked_at: str | None


class NodeRevoked(Message, frozen=True):
    node: str
    certificates: int  # that were denied by this
