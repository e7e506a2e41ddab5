"""The fleet as people see it: states, reasons and figures in the words of the admin API."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from appliance.domain.clock import iso
from appliance.fleet.sessions import Session
from appliance.fleet.statuses import DeploymentStatus, ReplicaStatus
from appliance.registry.nodes import Wish
from appliance.scheduler.tickets import DeploymentView, ReplicaView
from appliance.wire.agent import EngineCount, PreemptionNotice
from appliance.wire.fleet import DeploymentState, NodeState, Replica
from appliance.wire.gpu import Driver, Gpu, NodeHealth

_AT_WORK: Final = frozenset({"ready", "draining"})


@dataclass(frozen=True, slots=True)
class FleetDeployment:
    state: DeploymentState
    reason: str
    replicas: tuple[Replica, ...]


@dataclass(frozen=True, slots=True)
class FleetNode:
    state: NodeState
    agent_version: str
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...]
    engines: tuple[str, ...]
    last_seen_at: str
    seen_s: float  # the same, monotonic
    notice: PreemptionNotice | None = None  # it will be taken away
    reason: str = ""
    gpu_figures: tuple[Gpu, ...] = ()
    driver: Driver | None = None
    health: NodeHealth | None = None
    engine_versions: Mapping[str, str] = field(default_factory=dict)


def deployment_view(
    status: DeploymentStatus,
    scheduled: DeploymentView | None,
    loads: Mapping[str, EngineCount] = MappingProxyType({}),
) -> FleetDeployment:
    """`scheduled`: as the scheduler knows it; replicas that do not serve are absent there.

    `loads`: what their engines told of themselves last.
    """
    serving = () if scheduled is None else scheduled.replicas
    by_id = {replica.target.replica_id: replica for replica in serving}
    replicas = tuple(
        _replica(replica, by_id.get(replica.row.id), loads.get(replica.row.id))
        for replica in status.replicas
    )
    return FleetDeployment(status.state, status.reason, replicas)


def node_view(
    session: Session,
    wish: Wish,
    *,
    lost: bool,
    notice: PreemptionNotice | None = None,
    held: str = "",
) -> FleetNode:
    """`held`: why a node that shall be empty is not."""
    running = any(report.state not in {"failed", "stopped"} for report in session.reports)
    state: NodeState = "ready"
    if lost:
        state = "unreachable"
    elif wish != "serving":
        state = "draining" if running else "maintenance"
    elif session.health is not None and session.health.state == "failed":
        state = "failed"
    return FleetNode(
        state=state,
        agent_version=session.hello.agent_version,
        cores=session.hello.cores,
        memory_bytes=session.hello.memory_bytes,
        gpus=tuple(gpu.name for gpu in session.gpus) or session.hello.gpus,
        engines=session.hello.engines,
        last_seen_at=iso(session.seen_ns),
        seen_s=session.seen_s,
        notice=notice,
        reason=_ending(notice)
        or (_silence(session) if lost else "")
        or (held if state == "draining" else "")
        or (worst_part(session.health) if state in {"ready", "failed"} else ""),
        gpu_figures=session.gpus,
        driver=session.driver,
        health=session.health,
        engine_versions={str(kind): said for kind, said in session.hello.engine_versions.items()},
    )


def _silence(session: Session) -> str:
    """When a lost node was heard last, and where to look."""
    since = f"It was heard last at {iso(session.seen_ns)}."
    if session.origin.host is None:
        return (
            f"{since} Its agent is this host's: see whether it runs, and start it with `cic agent`"
            " or `cic serve --with-agent`."
        )
    return (
        f"{since} It spoke from {session.origin.host}: see whether the machine is on, its cable,"
        " the firewall before the node API's port here, and whether its agent runs: `cic agent`."
    )


def _ending(notice: PreemptionNotice | None) -> str:
    """That the machine will be taken away; "" when it stays."""
    if notice is None:
        return ""
    by = "Notice was given" if notice.source == "operator" else f"The cloud ({notice.source}) says"
    why = f" ({notice.detail})" if notice.detail else ""
    return f"{by} that this machine ends at {iso(notice.at_ns)}{why}."


def worst_part(health: NodeHealth | None) -> str:
    """Why a node is not in good health; "" when it is."""
    if health is None or health.state == "ok" or not health.parts:
        return ""
    return min(health.parts, key=lambda part: part.score).reason


def _replica(
    status: ReplicaStatus, scheduled: ReplicaView | None, load: EngineCount | None
) -> Replica:
    report = status.report
    if status.state not in _AT_WORK:
        load = None  # what was told before it ended, or fell silent
    reason = status.reason
    if scheduled is not None and scheduled.ejected_s > 0:
        reason = (
            f"{scheduled.failures} requests failed in a row:"
            f" no new ones for {scheduled.ejected_s:.0f} s."
        )
    return Replica(
        id=status.row.id,
        node=status.node_name,
        state=status.state,
        reason=reason,
        address=status.address,
        pid=None if report is None else report.pid,
        restarts=0 if report is None else report.restarts,
        slots=None if report is None else report.slots,
        context_tokens=None if report is None else report.context_tokens,
        tokens_per_s=None if report is None else report.tokens_per_s,
        requests_running=None if scheduled is None else scheduled.running,
        since=None if status.since_ns is None else iso(status.since_ns),
        generation=status.row.generation,
        gpus=list(status.row.gpu_uuids),
        engine_version=None if report is None else report.engine_version,
        load_percent=(
            None if report is None or report.progress is None else round(report.progress * 100, 1)
        ),
        requests_waiting=None if load is None else load.waiting,
        output_tokens_per_s=None if load is None else load.tokens_per_s,
        cache_used_percent=(
            None if load is None or load.cache_used is None else round(load.cache_used * 100, 1)
        ),
    )
