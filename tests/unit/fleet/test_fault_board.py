"""Faults that agents tell are in the audit once when they come and once when they go."""

from typing import Any

import msgspec

from appliance.domain.ids import NodeId
from appliance.fleet.fault_board import FaultBoard
from appliance.registry.registry import Registry
from appliance.wire.gpu import GpuFault, NodeHealth
from tests.fakes.clock import ManualClock

LOST = GpuFault(
    code="GPU_LOST",
    severity="fatal",
    message="GPU 1: The GPU has fallen off the bus.",
    next_step="Drain the node.",
    since_ns=1,
    gpu_uuid="GPU-1",
)
HOT = msgspec.structs.replace(LOST, code="THERMAL_LIMIT", severity="warning", gpu_uuid="GPU-0")
HUNG = msgspec.structs.replace(LOST, code="NVML_HUNG", gpu_uuid=None)


def health(*faults: GpuFault) -> NodeHealth:
    return NodeHealth(score=0, state="failed", parts=(), faults=faults)


async def audit(registry: Registry) -> list[tuple[str, str, Any]]:
    entries = [e for e in await registry.audit.list() if e.action.startswith("fault")]
    assert (await registry.audit.verify()).ok
    return [
        (e.action, e.object_name, msgspec.json.decode(e.after or e.before or "")["code"])
        for e in entries
    ]


async def a_node(registry: Registry) -> NodeId:
    return (await registry.nodes.create("test", "n1")).id


async def test_each_comes_and_goes_once(registry: Registry) -> None:
    node_id, clock = await a_node(registry), ManualClock()
    board = FaultBoard(registry.faults, clock)
    await board.read()
    assert board.hear(node_id, health(LOST, HUNG))
    await board.record()
    for _ in range(3):
        clock.turn(3.0)
        warmer = msgspec.structs.replace(LOST, message="GPU 1: in other words.")
        assert not board.hear(node_id, health(warmer, HUNG))
        await board.record()
    board.hear(node_id, health(HUNG))
    clock.turn(3.0)
    await board.record()
    assert await audit(registry) == [
        ("fault", "n1", "GPU_LOST"),
        ("fault", "n1", "NVML_HUNG"),
        ("fault cleared", "n1", "GPU_LOST"),
    ]


async def test_a_restart_of_the_appliance_or_the_agent_is_no_news(registry: Registry) -> None:
    node_id = await a_node(registry)
    first = FaultBoard(registry.faults, ManualClock())
    await first.read()
    first.hear(node_id, health(LOST))
    await first.record()
    second = FaultBoard(registry.faults, ManualClock())
    await second.read()
    assert not second.hear(node_id, None)  # the agent has only begun to look
    assert not second.hear(node_id, health(LOST))
    await second.record()
    assert second.hear(node_id, health())
    await second.record()
    assert [action for action, _name, _code in await audit(registry)] == ["fault", "fault cleared"]


async def test_an_agent_that_has_lost_its_wits_does_not_fill_the_audit(registry: Registry) -> None:
    node_id, clock = await a_node(registry), ManualClock()
    board = FaultBoard(registry.faults, clock)
    for turn in range(100):  # ten a second
        board.hear(node_id, health(LOST) if turn % 2 else health(HOT))
        await board.record()
        clock.turn(0.1)
    assert len(await audit(registry)) <= 2 * 6
    many = [msgspec.structs.replace(LOST, code=f"XID_{n}") for n in range(10_000)]
    clock.turn(3.0)
    board.hear(node_id, health(*many))
    await board.record()
    assert len(await audit(registry)) <= 2 * 6 + 2 * 256


async def test_long_words_of_a_node_are_cut(registry: Registry) -> None:
    node_id = await a_node(registry)
    board = FaultBoard(registry.faults, ManualClock())
    board.hear(node_id, health(msgspec.structs.replace(LOST, code="X" * 999, message="m" * 10**6)))
    await board.record()
    (entry,) = [e for e in await registry.audit.list() if e.action == "fault"]
    assert len(entry.after or "") < 1500


async def test_a_node_that_was_removed_meanwhile_stops_nothing(registry: Registry) -> None:
    node_id = await a_node(registry)
    board = FaultBoard(registry.faults, ManualClock())
    board.hear(node_id, health(LOST))
    await registry.nodes.delete("test", "n1")
    await board.record()
    assert await audit(registry) == []
    board.forget(node_id)
    await board.record()
