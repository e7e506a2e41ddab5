"""What the agents have told: one session for each node, in memory only.

An appliance that starts anew knows no session; it answers `unknown_node` and the agents introduce
themselves again. Their engines run on meanwhile.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.domain.ids import NodeId
from appliance.fleet.errors import BadReport, ForeignNode, UnknownNode, UnsupportedVersion
from appliance.wire.agent import VERSION, Heartbeat, Hello, ReplicaReport
from appliance.wire.gpu import Driver, Gpu, NodeHealth


@dataclass(frozen=True, slots=True)
class Origin:
    """Who speaks, by what nobody can make up: a node's certificate, or this host's own socket."""

    node_id: NodeId | None  # None: an agent of this host
    host: str | None  # the address of a node's connection


LOCAL: Final = Origin(None, None)


@dataclass(slots=True)
class Session:
    """One node as its agent last reported it."""

    node_id: NodeId
    hello: Hello
    seen_s: float  # monotonic
    seen_ns: int  # wall clock
    origin: Origin = LOCAL
    door_port: int | None = None  # of a node on another host
    reported: bool = False  # a heartbeat has come since the hello
    reports: tuple[ReplicaReport, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    driver: Driver | None = None
    health: NodeHealth | None = None
    models: tuple[str, ...] = ()  # digests in its store


class Sessions:
    """All sessions, by node. Times are parameters."""

    __slots__ = ("_by_node", "_lost_s", "_started_s")

    def __init__(self, lost_s: float, started_s: float) -> None:
        """A node is lost after `lost_s` without a word."""
        self._lost_s = lost_s
        self._started_s = started_s
        self._by_node: dict[NodeId, Session] = {}

    def hello(
        self, node_id: NodeId, hello: Hello, now_s: float, now_ns: int, origin: Origin = LOCAL
    ) -> None:
        """An agent introduced itself. Its last reports stand until its first heartbeat.

        A node that speaks with a certificate wins over an agent of this host that has its name.
        """
        if hello.version != VERSION:
            raise _unsupported(hello.version)
        before = self._by_node.get(node_id)
        if before is not None and origin.node_id is None and before.origin.node_id is not None:
            raise ForeignNode(
                f"The node {hello.node_name!r} is another host, which joined with a token.",
                next_step="Give the agent of this host another name with --name.",
            )
        kept = before if before is not None and before.origin.node_id == origin.node_id else None
        self._by_node[node_id] = Session(
            node_id,
            hello,
            now_s,
            now_ns,
            origin,
            door_port=None if kept is None else kept.door_port,
            reports=() if kept is None else kept.reports,
            gpus=() if kept is None else kept.gpus,
            driver=None if kept is None else kept.driver,
            health=None if kept is None else kept.health,
            models=() if kept is None else kept.models,
        )

    def heartbeat(
        self, heartbeat: Heartbeat, now_s: float, now_ns: int, origin: Origin = LOCAL
    ) -> bool:
        """Take the reports in; True when they differ from the last ones."""
        if heartbeat.version != VERSION:
            raise _unsupported(heartbeat.version)
        if origin.node_id is not None and origin.node_id != heartbeat.node_id:
            raise ForeignNode("A node speaks for itself alone, and its certificate names another.")
        session = self._by_node.get(NodeId(heartbeat.node_id))
        if session is None:
            raise UnknownNode(f"This appliance has no session of the node {heartbeat.node_id!r}.")
        if session.origin.node_id != origin.node_id:
            raise ForeignNode("This node is another host, which joined with a token.")
        for report in heartbeat.replicas:
            _check(report)
        if heartbeat.door_port is not None and not 0 < heartbeat.door_port < 65_536:
            raise BadReport(f"The node reports the port {heartbeat.door_port} for its door.")
        news = (
            not session.reported
            or session.reports != heartbeat.replicas
            or session.origin != origin
            or session.door_port != heartbeat.door_port
            or _usable(session.health, session.gpus) != _usable(heartbeat.health, heartbeat.gpus)
        )
        returned = now_s - session.seen_s > self._lost_s
        session.reported = True
        session.reports = heartbeat.replicas
        session.origin = origin
        session.door_port = heartbeat.door_port
        if heartbeat.health is not None:  # else its agent has only begun to look
            session.gpus = heartbeat.gpus
            session.driver = heartbeat.driver
            session.health = heartbeat.health
        session.models = heartbeat.models
        session.seen_s = now_s
        session.seen_ns = now_ns
        return news or returned

    def forget(self, node_id: NodeId) -> None:
        self._by_node.pop(node_id, None)

    def joined(self) -> set[NodeId]:
        """The nodes of other hosts."""
        return {n for n, session in self._by_node.items() if session.origin.node_id is not None}

    def get(self, node_id: NodeId) -> Session | None:
        return self._by_node.get(node_id)

    def lost(self, node_id: NodeId, now_s: float) -> bool:
        """Whether the node was silent for too long."""
        return self.silent_s(node_id, now_s) > self._lost_s

    def silent_s(self, node_id: NodeId, now_s: float) -> float:
        """Seconds without a word, counted from this appliance's own start at the most."""
        session = self._by_node.get(node_id)
        return now_s - (self._started_s if session is None else session.seen_s)


def _usable(health: NodeHealth | None, gpus: Sequence[Gpu]) -> tuple[object, ...]:
    """What of the GPUs a placement depends on: news when it changes, which figures are not."""
    state = None if health is None else health.state
    return state, tuple((gpu.uuid, gpu.state) for gpu in gpus)


def _unsupported(version: int) -> UnsupportedVersion:
    return UnsupportedVersion(
        f"The agent speaks version {version} of the wire, this appliance version {VERSION}.",
        next_step="Run the same release of both.",
    )


def _check(report: ReplicaReport) -> None:
    """Engines listen to their own host alone, so an engine elsewhere is a lie, or an open one.

    Other hosts reach them through their node's door.
    """
    if report.host is not None:
        try:
            loopback = ipaddress.ip_address(report.host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise BadReport(f"The replica {report.replica_id} is not on a loopback address.")
    if report.port is not None and not 0 < report.port < 65_536:
        raise BadReport(f"The replica {report.replica_id} reports the port {report.port}.")
    figures = (report.slots, report.context_tokens, report.tokens_per_s, report.loaded_s)
    if any(figure is not None and figure < 0 for figure in figures) or report.slots == 0:
        raise BadReport(f"The replica {report.replica_id} reports figures that cannot be.")
    if report.state == "ready" and (report.host is None or report.port is None):
        raise BadReport(f"The replica {report.replica_id} is ready without an address.")
