"""Tokens without a node API: made and kept for real, for a server that is nowhere."""

from appliance.domain.clock import iso
from appliance.registry.registry import Registry
from appliance.wire.join import TOKEN_PREFIX
from appliance.wire.node_tokens import NodeListener, NodeTokenCreate, NodeTokenCreated

SERVER = "https://192.0.2.1:8444"
CA_SHA256 = "ca" * 32


class FixedJoining:
    """A JoinSource of the admin API over a real registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def token(self, actor: str, asked: NodeTokenCreate) -> NodeTokenCreated:
        row, secret = await self._registry.node_tokens.create(
            actor, ttl_s=asked.ttl_s, node_name=asked.node
        )
        token = f"{TOKEN_PREFIX}{secret}.{CA_SHA256}"
        return NodeTokenCreated(
            id=row.id,
            token=token,
            server=SERVER,
            command=f"cic agent join --server {SERVER} --token {token}",
            ca_sha256=CA_SHA256,
            node=row.node_name,
            expires_at=iso(row.expires_at_ns),
            listener=NodeListener(address="0.0.0.0:8444", opened=True),
        )
