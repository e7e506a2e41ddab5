"""Errors of the fleet.

FleetError
├── UnknownNode          a heartbeat of a node that has not said hello to this appliance
├── UnsupportedVersion   the agent speaks another version of the wire
├── BadReport            a report that cannot be true, or not on this socket
├── ForeignNode          somebody speaks for a node that it is not
├── NodeSilent           a node did not answer what it was asked
└── PeerRefused          the process at the other end may not be this host's agent
"""

from appliance.domain.errors import CrossLogicError


class FleetError(CrossLogicError):
    code = "fleet_error"


class UnknownNode(FleetError):
    code = "unknown_node"


class UnsupportedVersion(FleetError):
    code = "unsupported_version"


class BadReport(FleetError):
    code = "bad_report"


class ForeignNode(FleetError):
    code = "foreign_node"


class NodeSilent(FleetError):
    code = "node_silent"


class PeerRefused(FleetError):
    code = "peer_refused"
