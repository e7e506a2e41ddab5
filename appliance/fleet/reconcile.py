"""From what is wanted and what is reported to what each node shall run and what clients may use.

Pure: rows of the registry, sessions and probes in; placements, desired replicas, targets and
states out. Rules:
- A replica stays on its node. It is placed anew only when its node was removed, takes no replicas
  any more, or was silent for `moved_after_s`; and only onto a node that is ready, in the
  deployment's region, and has the engine. The node with the fewest replicas takes it.
- An engine that is ready serves, also while its successor of a newer generation is awaited.
- The replicas of a lost node serve nobody, but stay wanted there: its engines may be well.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from appliance.domain.ids import DeploymentId, NodeId, ReplicaId
from appliance.domain.tls_names import replica_name
from appliance.fleet.external import Endpoint, Health
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.engines import Engine
from appliance.registry.generations import Generation
from appliance.registry.nodes import NodeRow
from appliance.registry.replicas import ReplicaRow
from appliance.scheduler.replicas import ReplicaTarget
from appliance.wire.agent import DesiredReplica, ReplicaReport

DeploymentState = Literal["pending", "starting", "ready", "degraded", "failed", "suspended"]

EXTERNAL_NODE: Final = "external"
_CONTEXT_TOKENS_DEFAULT: Final = 4_096
_ON_THE_WAY: Final = frozenset({"pending", "starting", "draining", "stopped"})


@dataclass(frozen=True, slots=True)
class Door:
    """Where the engines of a node on another host are reached: the address its agent speaks from.

    `port` None: the node's door is not open.
    """

    node_id: NodeId
    host: str
    port: int | None


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node as far as its agent told. `engines` is empty when it never spoke."""

    row: NodeRow
    ready: bool  # spoke lately and takes replicas
    lost: bool
    silent_s: float
    engines: frozenset[str] = frozenset()
    reports: Mapping[str, ReplicaReport] = field(default_factory=dict)
    door: Door | None = None  # None: it is this host


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


@dataclass(frozen=True, slots=True)
class Plan:
    placements: Mapping[ReplicaId, NodeId | None]  # that differ from the registry's
    desired: Mapping[NodeId, tuple[DesiredReplica, ...]]
    deployments: Mapping[DeploymentId, DeploymentStatus]


def plan(
    deployments: Sequence[DeploymentRow],
    replicas: Sequence[ReplicaRow],
    generations: Mapping[tuple[DeploymentId, int], Generation],
    nodes: Mapping[NodeId, NodeFacts],
    external: Mapping[DeploymentId, ExternalFacts],
    moved_after_s: float,
) -> Plan:
    """Compare what is wanted with what is, for the whole fleet."""
    wanted: dict[DeploymentId, list[ReplicaRow]] = {row.id: [] for row in deployments}
    for replica in replicas:
        if replica.deployment_id in wanted:
            wanted[replica.deployment_id].append(replica)
    load = Counter(replica.node_id for replica in replicas if replica.node_id is not None)
    placements: dict[ReplicaId, NodeId | None] = {}
    desired: dict[NodeId, list[DesiredReplica]] = {node_id: [] for node_id in nodes}
    statuses: dict[DeploymentId, DeploymentStatus] = {}
    for deployment in deployments:
        rows = wanted[deployment.id]
        if deployment.engine is Engine.EXTERNAL:
            statuses[deployment.id] = _external(deployment, rows, external.get(deployment.id))
            continue
        seen: list[ReplicaStatus] = []
        for row in rows:
            node_id, why = _place(deployment, row, nodes, load, moved_after_s)
            if node_id != row.node_id:
                placements[row.id] = node_id
            if node_id is not None and not deployment.suspended:
                desired[node_id].append(_desired(deployment, row, generations))
            seen.append(_status(row, nodes.get(node_id) if node_id else None, why))
        statuses[deployment.id] = _summary(deployment, seen)
    return Plan(placements, {node: tuple(rows) for node, rows in desired.items()}, statuses)


def _place(
    deployment: DeploymentRow,
    replica: ReplicaRow,
    nodes: Mapping[NodeId, NodeFacts],
    load: Counter[NodeId],
    moved_after_s: float,
) -> tuple[NodeId | None, str]:
    """The node the replica belongs on; None with the reason when there is none."""
    here = nodes.get(replica.node_id) if replica.node_id is not None else None
    if here is not None and here.row.wish == "serving" and here.silent_s < moved_after_s:
        return here.row.id, ""
    if deployment.suspended:  # nothing of it runs: no reason to move it now
        return replica.node_id if here is not None else None, ""
    fit = [facts for facts in nodes.values() if _fits(deployment, facts)]
    if fit:
        best = min(fit, key=lambda facts: (load[facts.row.id], facts.row.name))
        load[best.row.id] += 1
        if here is not None:
            load[here.row.id] -= 1
        return best.row.id, ""
    if here is not None and here.row.wish == "serving":
        return here.row.id, ""  # nowhere better: it may come back
    return None, _why_nowhere(deployment, nodes)


def _fits(deployment: DeploymentRow, facts: NodeFacts) -> bool:
    return (
        facts.ready
        and facts.row.region == deployment.region
        and str(deployment.engine) in facts.engines
    )


def _why_nowhere(deployment: DeploymentRow, nodes: Mapping[NodeId, NodeFacts]) -> str:
    ready = [facts for facts in nodes.values() if facts.ready]
    if not ready and any(facts.row.wish != "serving" for facts in nodes.values()):
        return "No node takes replicas. Resume one with `cic node resume`, or start an agent."
    if not ready:
        return "No node is ready. Start an agent with `cic agent`."
    if not any(facts.row.region == deployment.region for facts in ready):
        return f"No node in the region {deployment.region!r} is ready."
    return (
        f"No ready node can run the engine {deployment.engine}."
        " Install it there and restart the agent."
    )


def _desired(
    deployment: DeploymentRow,
    replica: ReplicaRow,
    generations: Mapping[tuple[DeploymentId, int], Generation],
) -> DesiredReplica:
    generation = generations[deployment.id, replica.generation]
    return DesiredReplica(
        replica_id=replica.id,
        deployment_id=deployment.id,
        generation=replica.generation,
        engine=deployment.engine.value,
        model_name=deployment.name,
        model_path=generation.model_path,
        parallel=generation.parallel,
        context_tokens=generation.context_tokens or _CONTEXT_TOKENS_DEFAULT,
        embedding=generation.embedding,
        settings=generation.settings,
        gpu_uuids=replica.gpu_uuids,
    )


def _status(replica: ReplicaRow, node: NodeFacts | None, why_nowhere: str) -> ReplicaStatus:
    if node is None:
        return ReplicaStatus(replica, "", "pending", why_nowhere)
    report = node.reports.get(replica.id)
    name = node.row.name
    if node.lost:
        reason = (
            f"The agent of the node {name!r} was not heard for {node.silent_s:.0f} s."
            " Start it there: `cic agent`, or `cic serve --with-agent` on the appliance's host."
        )
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
    return ReplicaStatus(
        replica, name, state, reason, address, report, report.started_ns, node.door
    )


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _summary(deployment: DeploymentRow, seen: Sequence[ReplicaStatus]) -> DeploymentStatus:
    targets = tuple(_target(deployment, status) for status in seen if status.state == "ready")
    if deployment.suspended:
        return DeploymentStatus("suspended", "", tuple(seen), (), 0)
    # A replica that waits before its next start comes by itself, so clients shall wait for it too.
    starting = sum(
        1 for s in seen if s.node_name and (s.state in _ON_THE_WAY or s.state == "backoff")
    )
    state, reason = _state(seen)
    return DeploymentStatus(state, reason, tuple(seen), targets, starting)


def _state(seen: Sequence[ReplicaStatus]) -> tuple[DeploymentState, str]:
    if not seen:
        return "pending", "No replicas are wanted."
    missing = [status for status in seen if status.state != "ready"]
    if not missing:
        return "ready", ""
    reason = next((status.reason for status in missing if status.reason), "")
    if len(missing) < len(seen):
        return (
            "degraded",
            f"{len(seen) - len(missing)} of {len(seen)} replicas serve. {reason}".strip(),
        )
    states = {status.state for status in missing}
    if "starting" in states or "draining" in states:
        first = next(s.reason for s in missing if s.state in {"starting", "draining"})
        return "starting", first
    if states & {"failed", "backoff", "unreachable"}:
        bad = {"failed", "backoff", "unreachable"}
        return "failed", next((s.reason for s in missing if s.state in bad and s.reason), reason)
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


def _external(
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
