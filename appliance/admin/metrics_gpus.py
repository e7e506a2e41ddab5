"""Nodes and their GPUs in Prometheus' format. A figure that a driver does not tell is absent."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from appliance.admin.ports import NodeLive
from appliance.wire.gpu import Gpu

_GPU_LABELS: Final = ("node", "gpu", "uuid")
_GAUGES: Final[tuple[tuple[str, str, Callable[[Gpu], float | None]], ...]] = (
    ("score", "Health of the GPU, 0 to 100.", lambda gpu: gpu.score),
    ("memory_used_bytes", "In use by programs.", lambda gpu: gpu.memory_used_bytes),
    ("memory_total_bytes", "Memory it has.", lambda gpu: gpu.memory_total_bytes),
    ("utilisation_percent", "Share of the time it worked.", lambda gpu: gpu.utilisation),
    ("temperature_celsius", "Of the GPU itself.", lambda gpu: gpu.temperature),
    ("power_watts", "Drawn now.", lambda gpu: gpu.power),
    ("sm_clock_megahertz", "Of its processors.", lambda gpu: gpu.sm_clock),
    ("ecc_uncorrected", "Since the driver was loaded.", lambda gpu: gpu.ecc_uncorrected),
)


def node_metrics(nodes: Mapping[str, NodeLive]) -> Iterator[Metric]:
    """`nodes` by name; a silent node's GPUs are left out, for their figures are old."""
    state = GaugeMetricFamily(
        "crosslogic_node_state", "1 for the state a node is in.", labels=["node", "state"]
    )
    health = GaugeMetricFamily(
        "crosslogic_node_health", "Score of each part of its health.", labels=["node", "part"]
    )
    faults = GaugeMetricFamily(
        "crosslogic_node_fault",
        "1 for each fault that is open.",
        labels=["node", "code", "severity", "uuid"],
    )
    for name, node in nodes.items():
        state.add_metric([name, node.state], 1)
        for part in () if node.health is None else node.health.parts:
            health.add_metric([name, part.name], part.score)
        for fault in () if node.health is None else node.health.faults:
            faults.add_metric([name, fault.code, fault.severity, fault.gpu_uuid or ""], 1)
    yield from (state, health, faults)
    yield from _gpus({n: node for n, node in nodes.items() if node.state != "unreachable"})


def _gpus(nodes: Mapping[str, NodeLive]) -> Iterator[Metric]:
    for word, meaning, figure in _GAUGES:
        gauge = GaugeMetricFamily(f"crosslogic_gpu_{word}", meaning, labels=_GPU_LABELS)
        for name, node in nodes.items():
            for gpu in node.gpu_figures:
                value = figure(gpu)
                if value is not None:
                    gauge.add_metric(_labels(name, gpu), value)
        yield gauge
    energy = CounterMetricFamily(
        "crosslogic_gpu_energy_joules", "Since the driver was loaded.", labels=_GPU_LABELS
    )
    for name, node in nodes.items():
        for gpu in node.gpu_figures:
            if gpu.energy is not None:
                energy.add_metric(_labels(name, gpu), gpu.energy / 1000)
    yield energy


def _labels(node: str, gpu: Gpu) -> list[str]:
    return [node, str(gpu.index), gpu.uuid]
