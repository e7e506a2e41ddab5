"""How replicas and deployments stand, from what is wanted and what is reported. Pure.

- An engine that is ready serves, also while its successor of a newer generation is awaited.
- The replicas of a lost node serve nobody, but stay wanted there: its engines may be well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from appliance.domain.ids import NodeId
from appliance.domain.tls_names import replica_name
from appliance.fleet.external import Endpoint, Health
from appliance.fleet.node_facts import Door, NodeFacts, units
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.replicas import ReplicaRow
from appliance.scheduler.replicas import ReplicaTarget
from appliance.wire.agent import ReplicaReport

DeploymentState = Literal[
    "pending", "starting", "ready", "degraded", "failed", "suspended", "unloaded"
]

EXTERNAL_NODE: Final = "external"
_ON_THE_WAY: Final = frozenset({"pending", "starting", "draining", "stopped", "backoff"})
_BAD: Final = frozenset({"failed", "backoff", "unreachable"})


@dataclass(frozen=True, slots=True)
class ExternalFacts:
    """What is known of a deployment's external engine. `endpoint` None: `health` says why."""

    endpoint: Endpoint | None
    api_key: str | None
    health: Health


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica and its last report. `report` None: nothing was heard of it."""

    row: ReplicaRow
    node_name: str
    state: str
    reason: str
    address: str | None = None
    report: ReplicaReport | None = None
    since_ns: int | None = None
    door: Door | None = None  # in front of the engine, on another host


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    state: DeploymentState
    reason: str
    replicas: tuple[ReplicaStatus, ...]
    targets: tuple[ReplicaTarget, ...]  # may serve now
    starting: int  # will serve without anybody's doing

    @property
    def prompt_tokens_per_byte(self) -> float | None:
        """The largest that was measured on its replicas; None: none was."""
        reports = [r.report for r in self.replicas if r.report is not None]
        measured = [r.prompt_tokens_per_byte for r in reports]
        return max((ratio for ratio in measured if ratio is not None), default=None)


def replica_status(
    replica: ReplicaRow, nodes: Mapping[NodeId, NodeFacts], why_nowhere: str
) -> ReplicaStatus:
    """`replica` as it is placed now; `why_nowhere`: why it is not."""
    node = None if replica.node_id is None else nodes.get(replica.node_id)
    if node is None:
        return ReplicaStatus(replica, "", "pending", why_nowhere)
    for seat in replica.followers:
        follower = nodes.get(seat.node_id)
        if follower is None or follower.lost:
            lost = seat.node_id if follower is None else follower.name
            reason = f"It spans nodes, of which {lost!r} is not heard of."
            return ReplicaStatus(replica, node.name, "unreachable", reason)
    report = node.reports.get(replica.id)
    name = node.row.name
    if node.lost:
        reason = _lost(node)
        return ReplicaStatus(replica, name, "unreachable", reason, report=report)
    if report is None:
        return ReplicaStatus(replica, name, "pending", "The node has not begun with it yet.")
    address = None if report.port is None else f"{report.host}:{report.port}"
    state, reason = report.state, report.reason
    if node.door is not None:
        port = node.door.port
        address = None if address is None or port is None else _written(node.door.host, port)
        if state == "ready" and port is None:
            state, reason = "starting", "The node's door is not open yet."
    if state == "ready" and report.asleep:
        # Its agent wakes it when it hears of it: until then a request would wait in it for nothing.
        state, reason = "starting", "It sleeps, and is woken when it is asked for."
    if state == "ready":
        reason = _lost_gpu(replica, node) or reason
    return ReplicaStatus(
        replica, name, state, reason, address, report, report.started_ns, node.door
    )


def _lost(node: NodeFacts) -> str:
    """That nothing is heard of a node. Its engines may be well: only a local agent is dead."""
    name = node.row.name
    if not node.heard:
        return (
            f"The agent of the node {name!r} has not spoken since this appliance started, or was"
            f" revoked. `cic node show {name}` tells which, and what to do."
        )
    since = f"The agent of the node {name!r} was not heard for {node.silent_s:.0f} s."
    if node.door is None:
        return f"{since} Start it on this host: `cic agent`, or `cic serve --with-agent`."
    return (
        f"{since} The connection to it is lost, or the machine. `cic node show {name}` tells where"
        " to look."
    )


def _lost_gpu(replica: ReplicaRow, node: NodeFacts) -> str:
    """That a GPU it runs on is not what it was, though it says it serves; "": all are."""
    bad = {unit.uuid: unit.state for unit in units(node) if unit.state in {"gone", "failed"}}
    for uuid in replica.gpu_uuids:
        if uuid in bad:
            return f"Its GPU {uuid} is {bad[uuid]}: `cic node show {node.name}` says what to do."
    return ""


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def deployment_status(
    deployment: DeploymentRow,
    seen: Sequence[ReplicaStatus],
    *,
    unloaded: bool = False,
    progress: str = "",
) -> DeploymentStatus:
    """`seen`: its replicas. `progress`: what a change, or a move, of them waits for."""
    if deployment.suspended:
        return DeploymentStatus("suspended", "", tuple(seen), (), 0)
    targets = tuple(_target(deployment, status) for status in seen if status.state == "ready")
    if unloaded:
        reason = "Nobody asked for it for a while: the next request loads it."
        return DeploymentStatus("unloaded", reason, tuple(seen), (), deployment.replicas)
    # A replica that waits before its next start comes by itself, so clients shall wait for it too.
    starting = sum(1 for s in seen if s.node_name and s.state in _ON_THE_WAY)
    state, reason = _state(_by_ordinal(seen))
    reason = f"{reason} {progress}".strip()
    return DeploymentStatus(state, reason, tuple(seen), targets, starting)


def _by_ordinal(seen: Sequence[ReplicaStatus]) -> list[ReplicaStatus]:
    """One of each ordinal: that which serves, else the newest."""
    best: dict[int, ReplicaStatus] = {}
    for status in seen:
        known = best.get(status.row.ordinal)
        if known is None or known.state != "ready":
            best[status.row.ordinal] = status
    return list(best.values())


def _state(seen: Sequence[ReplicaStatus]) -> tuple[DeploymentState, str]:
    if not seen:
        return "pending", "No replicas are wanted."
    missing = [status for status in seen if status.state != "ready"]
    if not missing:
        return "ready", next((status.reason for status in seen if status.reason), "")
    reason = next((status.reason for status in missing if status.reason), "")
    if len(missing) < len(seen):
        serving = f"{len(seen) - len(missing)} of {len(seen)} replicas serve."
        return "degraded", f"{serving} {reason}".strip()
    states = {status.state for status in missing}
    if "starting" in states or "draining" in states:
        first = next(s.reason for s in missing if s.state in {"starting", "draining"})
        return "starting", first
    if states & _BAD:
        return "failed", next((s.reason for s in missing if s.state in _BAD and s.reason), reason)
    if any(status.node_name for status in missing):
        return "starting", reason
    return "pending", reason


def _target(deployment: DeploymentRow, status: ReplicaStatus) -> ReplicaTarget:
    report = status.report
    assert report is not None  # only a report makes a replica ready
    assert report.host is not None  # the session refuses a ready replica without an address
    assert report.port is not None
    host, port, server_name = report.host, report.port, None
    if status.door is not None:
        assert status.door.port is not None  # without it the replica is not ready
        host, port = status.door.host, status.door.port
        server_name = replica_name(status.row.id, status.door.node_id)
    return ReplicaTarget(
        replica_id=status.row.id,
        deployment_id=deployment.id,
        node_name=status.node_name,
        host=host,
        port=port,
        tls=server_name is not None,
        server_name=server_name,
        base_path="",
        api_key=report.api_key,
        upstream_model=deployment.upstream_model,
        slots=report.slots,
        tokens_per_s=report.tokens_per_s,
        context_tokens=report.context_tokens,
        operations=deployment.operations,
    )


def external_status(
    deployment: DeploymentRow, rows: Sequence[ReplicaRow], facts: ExternalFacts | None
) -> DeploymentStatus:
    """An external engine is one replica, its URL, however many are asked for."""
    if deployment.suspended:
        return DeploymentStatus("suspended", "", (), (), 0)
    if not rows:
        return DeploymentStatus("pending", "No replicas are wanted.", (), (), 0)
    row = rows[0]
    health = Health() if facts is None else facts.health
    endpoint = None if facts is None else facts.endpoint
    address = None if endpoint is None else f"{endpoint.host}:{endpoint.port}"
    state: DeploymentState
    if not health.asked:
        state, reason = "starting", "Asking the engine for the first time."
    else:
        state, reason = ("ready", "") if health.ready else ("failed", health.reason)
    status = ReplicaStatus(row, EXTERNAL_NODE, state, reason, address, since_ns=health.since_ns)
    targets: tuple[ReplicaTarget, ...] = ()
    if facts is not None and endpoint is not None and state == "ready":
        targets = (
            ReplicaTarget(
                replica_id=row.id,
                deployment_id=deployment.id,
                node_name=EXTERNAL_NODE,
                host=endpoint.host,
                port=endpoint.port,
                tls=endpoint.tls,
                base_path=endpoint.base_path,
                api_key=facts.api_key,
                upstream_model=deployment.upstream_model,
                slots=None,
                tokens_per_s=None,
                context_tokens=deployment.context_tokens,
                operations=deployment.operations,
            ),
        )
    return DeploymentStatus(state, reason, (status,), targets, int(state == "starting"))
