"""Nodes that should be heard, their GPUs, and deployments that should serve."""

from collections.abc import Mapping, Sequence
from typing import Final

from appliance.checking.findings import Check, Finding, good
from appliance.fleet.service import Fleet
from appliance.fleet.view import FleetNode
from appliance.registry.nodes import NodeRow
from appliance.registry.registry import Registry

_JOIN: Final = "Start its agent there: `cic agent`. A machine that never comes: `cic node delete`."


def fleet_checks(registry: Registry, fleet: Fleet) -> list[Check]:
    async def nodes() -> Sequence[Finding]:
        rows = await registry.nodes.list()
        nothing = [Finding("skipped", "No node is known yet.")]
        return [node_found(row, fleet.node(row.id)) for row in rows] or nothing

    async def gpus() -> Sequence[Finding]:
        return gpu_findings(fleet.nodes())

    return [
        Check("node", "Engines run where an agent is heard.", nodes),
        Check("gpu", "A GPU with a fault gives wrong answers, or none.", gpus),
    ]


def node_found(row: NodeRow, seen: FleetNode | None) -> Finding:
    if seen is None:
        return Finding("warning", "Its agent never said hello.", _JOIN, row.name)
    told = f"{seen.state}; last heard at {seen.last_seen_at}."
    score = None if seen.health is None else seen.health.score
    if seen.state in {"unreachable", "failed"}:
        # A node that is meant to be away is no defect.
        away = row.wish == "maintenance"
        return Finding("skipped" if away else "failed", told, seen.reason, row.name)
    if seen.health is not None and seen.health.state != "ok":
        parts = [part.reason for part in seen.health.parts if part.reason]
        said = f"{told} Health {score} of 100."
        return Finding("warning", said, " ".join(parts) or f"`cic node show {row.name}`", row.name)
    return good(told if score is None else f"{told} Health {score} of 100.", row.name)


def gpu_findings(nodes: Mapping[str, FleetNode]) -> list[Finding]:
    found = []
    for name, node in nodes.items():
        if node.driver is not None and node.driver.problem:
            found.append(Finding("failed", node.driver.problem, f"`cic node show {name}`", name))
        faults = () if node.health is None else node.health.faults
        found += [
            Finding(
                "warning" if fault.severity == "warning" else "failed",
                f"{fault.code}: {fault.message}",
                fault.next_step,
                name if fault.gpu_uuid is None else f"{name} {fault.gpu_uuid}",
            )
            for fault in faults
        ]
        if node.gpu_figures and not faults:
            found.append(good(f"{len(node.gpu_figures)} without a fault.", name))
    return found or [Finding("skipped", "No node has GPUs.")]
