"""Eight made-up nodes, each of another type, for tests of where replicas run."""

from dataclasses import replace

from appliance.domain.ids import NodeId
from appliance.fleet.node_facts import Door, NodeFacts
from appliance.registry.nodes import NodeRow
from appliance.wire.gpu import Gpu, GpuLink, GpuProcess, GpuSlice

GIB = 1024**3
ALL = frozenset({"llamacpp", "vllm", "sglang"})


def gpus(
    node: str, name: str, count: int, gib: int, *, switch: bool = False, pairs: bool = False
) -> tuple[Gpu, ...]:
    """`switch`: all reach all by an NVSwitch; `pairs`: each its neighbour by NVLink."""
    made = []
    for index in range(count):
        links: tuple[GpuLink, ...] = ()
        if switch:
            links = (GpuLink(link=0, up=True), GpuLink(link=1, up=True))
        elif pairs:
            links = (GpuLink(link=0, up=True, peer_uuid=f"GPU-{node}-{index ^ 1}"),)
        made.append(
            Gpu(
                index=index,
                uuid=f"GPU-{node}-{index}",
                name=name,
                bus_id=f"00000000:{index:02x}:00.0",
                memory_total_bytes=gib * GIB,
                memory_used_bytes=GIB // 2,
                links=links,
            )
        )
    return tuple(made)


def node(
    name: str,
    present: tuple[Gpu, ...] = (),
    *,
    engines: frozenset[str] = ALL,
    memory_gib: int = 256,
    wish: str = "serving",
) -> NodeFacts:
    return NodeFacts(
        row=NodeRow(NodeId(name), name, "local", wish, 0),  # type: ignore[arg-type]  # a test's shorthand
        ready=wish == "serving",
        lost=False,
        silent_s=0.0,
        engines=engines,
        gpus=present,
        memory_bytes=memory_gib * GIB,
        door=Door(NodeId(name), "192.0.2.1", 8445),
    )


def divided(gpu: Gpu, count: int, gib: int) -> Gpu:
    """The GPU in MIG slices."""
    slices = tuple(
        GpuSlice(
            uuid=f"MIG-{gpu.uuid}-{n}",
            profile=f"{n + 1}g.{gib}gb",
            memory_total_bytes=gib * GIB,
            memory_used_bytes=0,
        )
        for n in range(count)
    )
    return replace_gpu(gpu, slices=slices, mig=True)


def replace_gpu(gpu: Gpu, **changes: object) -> Gpu:
    fields = {name: getattr(gpu, name) for name in gpu.__struct_fields__}
    return Gpu(**(fields | changes))


def held_by_stranger(gpu: Gpu, gib: int) -> Gpu:
    process = GpuProcess(pid=1, memory_bytes=gib * GIB, name="train.py")
    return replace_gpu(gpu, memory_used_bytes=gib * GIB, processes=(process,))


def eight_types() -> dict[NodeId, NodeFacts]:
    """From a machine without GPUs to eight large ones behind a switch."""
    a10 = gpus("n03", "NVIDIA A10", 2, 24)
    l40s = gpus("n04", "NVIDIA L40S", 4, 48)
    (h100,) = gpus("n07", "NVIDIA H100 80GB HBM3", 1, 80)
    made = (
        node("n01", engines=frozenset({"llamacpp"})),
        node("n02", gpus("n02", "NVIDIA L4", 1, 24)),
        node("n03", a10),
        node("n04", (*l40s[:2], *(held_by_stranger(gpu, 40) for gpu in l40s[2:]))),
        node("n05", gpus("n05", "NVIDIA A100-SXM4-40GB", 8, 40, switch=True), memory_gib=1024),
        node("n06", gpus("n06", "NVIDIA H100 80GB HBM3", 8, 80, switch=True), memory_gib=2048),
        node("n07", (divided(h100, 2, 40),)),
        node("n08", gpus("n08", "NVIDIA H200", 2, 141, pairs=True), wish="draining"),
    )
    return {facts.row.id: facts for facts in made}


def broken(facts: NodeFacts, index: int) -> NodeFacts:
    """The node with one of its GPUs off the bus."""
    changed = tuple(
        replace_gpu(gpu, state="gone") if gpu.index == index else gpu for gpu in facts.gpus
    )
    return replace(facts, gpus=changed)
