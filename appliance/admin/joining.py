"""Tokens of nodes, their certificates, and denying those."""

import msgspec

from appliance.admin.calls import Call, NoQuery, Services
from appliance.domain.clock import iso
from appliance.registry.node_certificates import Certificate
from appliance.registry.node_tokens import TokenRow
from appliance.wire.node_tokens import (
    NodeCertificate,
    NodeRevoked,
    NodeToken,
    NodeTokenCreate,
    NodeTokenCreated,
)


class OfNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Narrows a list to a node (id or name)."""

    node: str | None = None


async def create_token(
    services: Services, call: Call[NoQuery, NodeTokenCreate]
) -> NodeTokenCreated:
    return await services.joining.token(call.actor, call.body)


async def list_tokens(services: Services, _call: Call[NoQuery, None]) -> list[NodeToken]:
    names = {row.id: row.name for row in await services.registry.nodes.list()}
    now_ns = services.clock.wall_ns()
    return [
        _token_view(row, now_ns, names.get(row.used_by) if row.used_by else None)
        for row in await services.registry.node_tokens.list()
    ]


async def revoke_token(services: Services, call: Call[NoQuery, None]) -> NodeToken:
    row = await services.registry.node_tokens.revoke(call.actor, call.ref)
    return _token_view(row, services.clock.wall_ns(), row.used_by)


async def list_certificates(services: Services, call: Call[OfNode, None]) -> list[NodeCertificate]:
    now_ns = services.clock.wall_ns()
    rows = await services.registry.node_certificates.list(call.query.node)
    return [_certificate_view(row, now_ns) for row in rows]


async def revoke_node(services: Services, call: Call[NoQuery, None]) -> NodeRevoked:
    node = await services.registry.nodes.get(call.ref)
    count = await services.registry.node_certificates.revoke(call.actor, node.id)
    return NodeRevoked(node=node.name, certificates=count)


def _token_view(row: TokenRow, now_ns: int, used_by: str | None) -> NodeToken:
    state = "unused"
    if row.used_at_ns is not None:
        state = "used"
    elif row.revoked_at_ns is not None:
        state = "revoked"
    elif now_ns >= row.expires_at_ns:
        state = "expired"
    return NodeToken(
        id=row.id,
        node=row.node_name,
        state=state,
        created_at=iso(row.created_at_ns),
        created_by=row.created_by,
        expires_at=iso(row.expires_at_ns),
        used_at=None if row.used_at_ns is None else iso(row.used_at_ns),
        used_by=used_by,
    )


def _certificate_view(row: Certificate, now_ns: int) -> NodeCertificate:
    state = "good"
    if row.revoked_at_ns is not None:
        state = "revoked"
    elif now_ns >= row.expires_at_ns:
        state = "expired"
    return NodeCertificate(
        serial=row.serial,
        node=row.node_name,
        state=state,
        issued_at=iso(row.issued_at_ns),
        expires_at=iso(row.expires_at_ns),
        revoked_at=None if row.revoked_at_ns is None else iso(row.revoked_at_ns),
    )
