"""What the agents have told: one session for each node, in memory only.

An appliance that starts anew knows no session; it answers `unknown_node` and the agents introduce
themselves again. Their engines run on meanwhile.
"""

import ipaddress
from dataclasses import dataclass

from appliance.domain.ids import NodeId
from appliance.fleet.errors import BadReport, UnknownNode, UnsupportedVersion
from appliance.wire.agent import VERSION, Heartbeat, Hello, ReplicaReport


@dataclass(slots=True)
class Session:
    """One node as its agent last reported it."""

    node_id: NodeId
    hello: Hello
    seen_s: float  # monotonic
    seen_ns: int  # wall clock
    reported: bool = False  # a heartbeat has come since the hello
    reports: tuple[ReplicaReport, ...] = ()


class Sessions:
    """All sessions, by node. Times are parameters."""

    __slots__ = ("_by_node", "_lost_s", "_started_s")

    def __init__(self, lost_s: float, started_s: float) -> None:
        """A node is lost after `lost_s` without a word."""
        self._lost_s = lost_s
        self._started_s = started_s
        self._by_node: dict[NodeId, Session] = {}

    def hello(self, node_id: NodeId, hello: Hello, now_s: float, now_ns: int) -> None:
        """An agent introduced itself. Its last reports stand until its first heartbeat."""
        if hello.version != VERSION:
            raise _unsupported(hello.version)
        before = self._by_node.get(node_id)
        self._by_node[node_id] = Session(
            node_id, hello, now_s, now_ns, reports=before.reports if before else ()
        )

    def heartbeat(self, heartbeat: Heartbeat, now_s: float, now_ns: int) -> bool:
        """Take the reports in; True when they differ from the last ones."""
        if heartbeat.version != VERSION:
            raise _unsupported(heartbeat.version)
        session = self._by_node.get(NodeId(heartbeat.node_id))
        if session is None:
            raise UnknownNode(f"This appliance has no session of the node {heartbeat.node_id!r}.")
        for report in heartbeat.replicas:
            _check(report)
        news = not session.reported or session.reports != heartbeat.replicas
        returned = now_s - session.seen_s > self._lost_s
        session.reported = True
        session.reports = heartbeat.replicas
        session.seen_s = now_s
        session.seen_ns = now_ns
        return news or returned

    def forget(self, node_id: NodeId) -> None:
        self._by_node.pop(node_id, None)

    def get(self, node_id: NodeId) -> Session | None:
        return self._by_node.get(node_id)

    def lost(self, node_id: NodeId, now_s: float) -> bool:
        """Whether the node was silent for too long."""
        return self.silent_s(node_id, now_s) > self._lost_s

    def silent_s(self, node_id: NodeId, now_s: float) -> float:
        """Seconds without a word, counted from this appliance's own start at the most."""
        session = self._by_node.get(node_id)
        return now_s - (self._started_s if session is None else session.seen_s)


def _unsupported(version: int) -> UnsupportedVersion:
    return UnsupportedVersion(
        f"The agent speaks version {version} of the wire, this appliance version {VERSION}.",
        next_step="Run the same release of both.",
    )


def _check(report: ReplicaReport) -> None:
    """Agents on this socket run engines on this host, so an engine elsewhere is a lie."""
    if report.host is not None:
        try:
            loopback = ipaddress.ip_address(report.host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise BadReport(f"The replica {report.replica_id} is not on a loopback address.")
    if report.port is not None and not 0 < report.port < 65_536:
        raise BadReport(f"The replica {report.replica_id} reports the port {report.port}.")
    if report.state == "ready" and (report.host is None or report.port is None):
        raise BadReport(f"The replica {report.replica_id} is ready without an address.")
