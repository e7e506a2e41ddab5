"""The names in the certificates of a site, made of ids: never looked up, only compared.

TLS takes letters, digits and hyphens in a name that a wildcard shall match, so the underscore of an
id becomes a hyphen. Ids are lower-case hexadecimal behind their prefix, so nothing is lost.
"""

from typing import Final

from appliance.domain.ids import NodeId, ReplicaId

APPLIANCE_NAME: Final = "appliance.crosslogic.internal"
APPLIANCE_URI: Final = "crosslogic://site/appliance"
_NODES: Final = "node.crosslogic.internal"


def node_name(node_id: NodeId) -> str:
    """The name of a node: what its certificate is checked for."""
    return f"{_label(node_id)}.{_NODES}"


def node_uri(node_id: NodeId) -> str:
    """The same for programs and people that read the certificate: the id as it is."""
    return f"crosslogic://site/node/{node_id}"


def replicas_name(node_id: NodeId) -> str:
    """The wildcard for the replicas of a node, in its certificate."""
    return f"*.{node_name(node_id)}"


def replica_name(replica_id: ReplicaId, node_id: NodeId) -> str:
    """What is asked for (SNI) at a node's door to reach that replica."""
    return f"{_label(replica_id)}.{node_name(node_id)}"


def _label(identifier: str) -> str:
    return identifier.replace("_", "-")
