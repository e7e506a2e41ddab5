"""Errors of the fleet.

FleetError
├── UnknownNode          a heartbeat of a node that has not said hello to this appliance
├── UnsupportedVersion   the agent speaks another version of the wire
├── BadReport            a report that cannot be true, or not on this socket
├── ForeignNode          somebody speaks for a node that it is not
├── NoAddress            under which address nodes reach this host cannot be told
├── NodeApiClosed        the node API cannot listen where it should
├── NoCertificate        a request without a node's certificate, on a route that wants one
├── RejoinRefused        an expired certificate that is too old, or not proven to be one's own
├── BurstsOff            nothing is lent from clouds here: the settings say so
├── NoOffer              no cloud has what a burst asks for, at its price
├── CloudUnavailable     SkyPilot is not there, or does not answer
├── CloudRefused         SkyPilot answered, and said no
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


class NoAddress(FleetError):
    code = "no_address"


class NodeApiClosed(FleetError):
    code = "node_api_closed"


class NoCertificate(FleetError):
    code = "no_certificate"


class RejoinRefused(FleetError):
    code = "rejoin_refused"


class PeerRefused(FleetError):
    code = "peer_refused"


class BurstsOff(FleetError):
    code = "bursts_off"


class NoOffer(FleetError):
    code = "no_offer"


class CloudUnavailable(FleetError):
    code = "cloud_unavailable"


class CloudRefused(FleetError):
    code = "cloud_refused"
