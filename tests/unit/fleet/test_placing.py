"""Where replicas run and why not elsewhere, on eight made-up node types."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.ids import DeploymentId, NodeId, ReplicaId
from appliance.fleet import placing
from appliance.fleet.estimate import Need, Shape, estimate
from appliance.fleet.node_facts import units
from appliance.fleet.placing import Ask, Choice, choose, linked
from appliance.fleet.room import Holding, Room
from appliance.modelpacks.catalogue import Entry, catalogue
from appliance.registry.engines import Engine
from appliance.registry.replicas import ReplicaRow
from appliance.wire.engine import EngineSettings
from appliance.wire.gpu import GpuProcess
from tests.fakes.node_types import (
    GIB,
    broken,
    eight_types,
    gpus,
    held_by_stranger,
    node,
    replace_gpu,
)

D1 = DeploymentId("dep_1")
PAGE = Path(__file__).parents[3] / "docs" / "PLACEMENT.md"
CONTEXT, PARALLEL = 8_192, 4  # as the page says
NO_ROOM = Room(())


def need_of(entry: Entry, settings: EngineSettings, engine: Engine = Engine.VLLM) -> Need:
    shape = Shape(
        entry.weights_bytes, entry.layers, entry.kv_heads, entry.head_size, entry.head_size
    )
    context = min(CONTEXT, entry.context_tokens)
    return estimate(engine, shape, settings, context_tokens=context, parallel=PARALLEL)


def ask(
    need: Need | None, settings: EngineSettings, engine: Engine = Engine.VLLM, **more: object
) -> Ask:
    return Ask(D1, engine, "local", settings, need, **more)  # type: ignore[arg-type]  # a test's shorthand


def per_gpu(gib: float, count: int = 1, share: float | None = None) -> Need:
    return Need(0, 0, count, int(gib * GIB), 0, share)


def chosen(choice: Choice) -> list[str]:
    return [seat.node_id for seat in choice.seats]


def why(choice: Choice, name: str) -> str:
    return "; ".join(next(v.reasons for v in choice.verdicts if v.node_name == name))


def placed(replica: str, node_id: str, *uuids: str, deployment: str = "dep_2") -> ReplicaRow:
    return ReplicaRow(
        ReplicaId(replica), DeploymentId(deployment), 0, NodeId(node_id), gpu_uuids=uuids
    )


def table() -> str:
    """The page's table: every catalogue model, every node type, chosen or why not."""
    nodes = eight_types()
    head = ["model", "a replica needs", *sorted(nodes)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for entry in catalogue():
        settings = entry.settings.get("vllm", EngineSettings(gpus=1))
        need = need_of(entry, settings)
        choice = choose(ask(need, settings), nodes, NO_ROOM)
        cells = [f"`{entry.name}`", f"{need.gpus} × {need.per_gpu_bytes / GIB:.0f} GiB"]
        for verdict in sorted(choice.verdicts, key=lambda v: v.node_name):
            if verdict.node_id in chosen(choice):
                cells.append(f"**chosen**, {verdict.score}")
            else:
                cells.append(
                    "; ".join(verdict.reasons) if verdict.score is None else f"{verdict.score}"
                )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_page_has_the_table_of_every_catalogue_model_on_eight_node_types() -> None:
    found = re.search(r"<!-- table -->\n(.*?)\n<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert found is not None
    assert found[1] == table()
    assert "**chosen**" in found[1]


def test_every_catalogue_model_has_a_verdict_of_every_node() -> None:
    nodes = eight_types()
    for entry in catalogue():
        settings = entry.settings.get("vllm", EngineSettings(gpus=1))
        choice = choose(ask(need_of(entry, settings), settings), nodes, NO_ROOM)
        assert {v.node_name for v in choice.verdicts} == set(nodes)
        assert all(v.reasons for v in choice.verdicts if v.score is None), "a refusal says why"
        assert "n08" not in chosen(choice), "it drains"
        assert "n01" not in chosen(choice), "it has no GPUs"


def test_what_falls_short_is_said_in_figures() -> None:
    settings = EngineSettings(gpus=2)
    choice = choose(ask(per_gpu(32.6, 2, 0.9), settings), eight_types(), NO_ROOM)
    assert why(choice, "n01") == "it has no engine vllm; it has no GPUs, 2 asked"
    assert why(choice, "n02") == "it has 1 GPU; 2 asked"
    assert why(choice, "n03") == "2 GPUs too small by 11 GiB"
    assert why(choice, "n07") == "it has no undivided GPUs, 2 asked"
    assert "it is draining" in why(choice, "n08")
    assert chosen(choice) == ["n05"], "the smaller of those that do, the large stay free"


def test_gpus_in_use_by_strangers_and_by_replicas_are_not_given_twice() -> None:
    l40s = gpus("a", "NVIDIA L40S", 2, 48)
    busy = node("a", (held_by_stranger(l40s[0], 40), l40s[1]))
    one = ask(per_gpu(30, share=0.9), EngineSettings(gpus=1))
    nodes = {busy.row.id: busy}
    choice = choose(one, nodes, NO_ROOM)
    assert choice.seats[0].gpu_uuids == ("GPU-a-1",)
    taken = Room([Holding(placed("rep_1", "a", "GPU-a-1"), per_gpu(30, share=0.9))])
    full = choose(one, nodes, taken)
    assert full.seats == ()
    assert "1 GPU short by" in why(full, "a")
    assert "other programs" in why(full, "a")
    assert choose(one, nodes, taken.without(ReplicaId("rep_1"))).seats == choice.seats


def test_a_replica_that_still_ends_holds_what_it_has() -> None:
    (gpu,) = gpus("a", "NVIDIA L4", 1, 24)
    process = GpuProcess(pid=7, memory_bytes=20 * GIB, replica_id="rep_old")
    used = replace_gpu(gpu, memory_used_bytes=20 * GIB, processes=(process,))
    facts = node("a", (used,))
    one = ask(per_gpu(10), EngineSettings(gpus=1), Engine.LLAMACPP)
    assert choose(one, {facts.row.id: facts}, NO_ROOM).seats == ()
    known = Room([Holding(placed("rep_old", "a", gpu.uuid), per_gpu(20))])
    assert choose(one, {facts.row.id: facts}, known).seats == ()
    assert choose(one, {facts.row.id: facts}, known.without(ReplicaId("rep_old"))).seats


def test_small_replicas_share_a_gpu_and_one_of_unknown_need_does_not() -> None:
    facts = node("a", gpus("a", "NVIDIA L40S", 1, 48))
    nodes = {facts.row.id: facts}
    settings = EngineSettings(gpus=1)
    small = ask(per_gpu(10), settings, Engine.LLAMACPP)
    beside = Room([Holding(placed("rep_1", "a", "GPU-a-0"), per_gpu(10))])
    assert choose(small, nodes, beside).seats
    assert choose(ask(None, settings), nodes, beside).seats == ()
    alone = Room([Holding(placed("rep_1", "a", "GPU-a-0"), None)])
    assert choose(small, nodes, alone).seats == ()
    assert choose(ask(None, settings), nodes, NO_ROOM).seats


def test_gpus_that_reach_one_another_by_nvlink_are_preferred() -> None:
    eight = gpus("a", "NVIDIA A100-SXM4-40GB", 4, 40, pairs=True)
    facts = node("a", (held_by_stranger(eight[0], 38), *eight[1:]))
    choice = choose(
        ask(per_gpu(30, 2, 0.9), EngineSettings(gpus=2)), {facts.row.id: facts}, NO_ROOM
    )
    assert choice.seats[0].gpu_uuids == ("GPU-a-2", "GPU-a-3")
    apart = [u for u in units(facts) if u.gpu.index in {1, 2}]
    assert not linked(apart)
    down = replace_gpu(eight[3], links=())
    facts = node("a", (*eight[1:3], down))
    choice = choose(
        ask(per_gpu(30, 2, 0.9), EngineSettings(gpus=2)), {facts.row.id: facts}, NO_ROOM
    )
    assert "no NVLink between them (-100)" in choice.verdicts[0].reasons


def test_a_slice_is_given_like_a_gpu_to_one_that_needs_one() -> None:
    nodes = {n: f for n, f in eight_types().items() if n == "n07"}
    choice = choose(ask(per_gpu(20, share=0.9), EngineSettings(gpus=1)), nodes, NO_ROOM)
    assert choice.seats[0].gpu_uuids == ("MIG-GPU-n07-0-0",)
    taken = Room([Holding(placed("rep_1", "n07", "MIG-GPU-n07-0-0"), per_gpu(20, share=0.9))])
    again = choose(ask(per_gpu(20, share=0.9), EngineSettings(gpus=1)), nodes, taken)
    assert again.seats[0].gpu_uuids == ("MIG-GPU-n07-0-1",)


def test_a_gpu_that_is_gone_is_not_given() -> None:
    facts = broken(eight_types()[NodeId("n03")], 0)
    choice = choose(ask(per_gpu(5, 2), EngineSettings(gpus=2)), {facts.row.id: facts}, NO_ROOM)
    assert why(choice, "n03") == "it has 2 GPUs, 1 failed; 2 asked"


def test_replicas_of_a_deployment_are_spread_and_pins_are_kept() -> None:
    nodes = eight_types()
    settings = EngineSettings(gpus=1)
    need = per_gpu(18, share=0.9)
    first = choose(ask(need, settings), nodes, NO_ROOM)
    there = first.seats[0]
    row = placed("rep_1", there.node_id, *there.gpu_uuids, deployment=D1)
    second = choose(ask(need, settings), nodes, Room([Holding(row, need)]))
    assert chosen(second) != chosen(first)
    pinned = choose(ask(need, settings, pins=(NodeId("n06"),)), nodes, NO_ROOM)
    assert chosen(pinned) == ["n06"]
    assert "pinned to other nodes" in why(pinned, "n02")


def test_a_node_that_has_the_model_already_is_preferred() -> None:
    one, other = node("a"), replace(node("b"), models=frozenset({"sha256:1"}))
    need = Need(0, 0, 0, 0, GIB)
    asked = ask(need, EngineSettings(), Engine.LLAMACPP, model_digest="sha256:1")
    assert chosen(choose(asked, {n.row.id: n for n in (one, other)}, NO_ROOM)) == ["b"]


def test_a_replica_over_several_nodes_gets_a_seat_on_each() -> None:
    nodes = eight_types()
    settings = EngineSettings(gpus=8, nodes=2)
    choice = choose(ask(per_gpu(30, 16, 0.9), settings), nodes, NO_ROOM)
    assert sorted(chosen(choice)) == ["n05", "n06"]
    assert all(len(seat.gpu_uuids) == 8 for seat in choice.seats)
    too_many = choose(ask(per_gpu(30, 24, 0.9), EngineSettings(gpus=8, nodes=3)), nodes, NO_ROOM)
    assert too_many.reason == "It needs 3 nodes, and 2 can take it."


def test_memory_of_the_node_counts_where_there_are_no_gpus() -> None:
    small = node("a", memory_gib=16)
    need = Need(20 * GIB, 0, 0, 0, 20 * GIB)
    choice = choose(ask(need, EngineSettings(), Engine.LLAMACPP), {small.row.id: small}, NO_ROOM)
    assert why(choice, "a") == "its memory is too small by 4.0 GiB"
    assert "a: its memory is too small by 4.0 GiB" in choice.reason
    half = Need(10 * GIB, 0, 0, 0, 10 * GIB)
    taken = Room([Holding(placed("rep_1", "a"), half)])
    choice = choose(ask(half, EngineSettings(), Engine.LLAMACPP), {small.row.id: small}, taken)
    assert "short by 4.0 GiB, other replicas" in why(choice, "a")


@pytest.mark.parametrize(
    ("dtype", "gib"), [(None, 1.0), ("fp8", 0.5), ("q8_0", 17 / 32), ("q4_0", 9 / 32)]
)
def test_the_estimate_counts_weights_cache_and_overhead(dtype: str | None, gib: float) -> None:
    shape = Shape(16 * GIB, layers=32, kv_heads=8, key_length=128, value_length=128)
    settings = EngineSettings(gpus=2, kv_cache_dtype=dtype)
    need = estimate(Engine.VLLM, shape, settings, context_tokens=8_192, parallel=1)
    assert need.kv_bytes == int(gib * GIB), "8192 × 32 × 8 × 256 × 2 bytes are 1 GiB"
    assert need.per_gpu_bytes == 8 * GIB + int(gib * GIB) // 2 + 2 * GIB
    assert (need.gpus, need.share) == (2, 0.9)


def test_the_estimate_follows_layers_measurements_and_what_files_do_not_say() -> None:
    shape = Shape(32 * GIB, 32, 8, 128, 128)
    half = EngineSettings(gpus=1, gpu_layers=16)
    need = estimate(Engine.LLAMACPP, shape, half, context_tokens=8_192, parallel=1)
    whole = estimate(
        Engine.LLAMACPP, shape, EngineSettings(gpus=1), context_tokens=8_192, parallel=1
    )
    assert need.per_gpu_bytes < whole.per_gpu_bytes
    assert need.host_bytes - whole.host_bytes == 33 * GIB // 2
    seen = estimate(
        Engine.LLAMACPP,
        shape,
        EngineSettings(gpus=1),
        context_tokens=8_192,
        parallel=1,
        measured_gpu_bytes=31 * GIB,
    )
    assert (seen.per_gpu_bytes, seen.measured) == (31 * GIB, True)
    filled = estimate(
        Engine.VLLM,
        shape,
        EngineSettings(gpus=1),
        context_tokens=8_192,
        parallel=1,
        measured_gpu_bytes=72 * GIB,
    )
    assert not filled.measured, "it holds what it is given, whatever it needs"
    unknown = estimate(
        Engine.VLLM, Shape(GIB), EngineSettings(gpus=1), context_tokens=8_192, parallel=1
    )
    assert (unknown.kv_bytes, unknown.per_gpu_bytes) == (None, 3 * GIB)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([6, 14, 30, 60])), max_size=12),
)
def test_no_gpu_is_promised_more_than_it_has(wanted: list[tuple[int, int]]) -> None:
    nodes = eight_types()
    room, rows = Room(()), []
    for number, (count, gib) in enumerate(wanted):
        need = per_gpu(gib, count)
        asked = ask(need, EngineSettings(gpus=count), Engine.LLAMACPP)
        choice = choose(asked, nodes, room)
        if not choice.seats:
            assert choice.reason
            continue
        seat = choice.seats[0]
        row = placed(f"rep_{number}", seat.node_id, *seat.gpu_uuids)
        rows.append((row, gib))
        room.take(Holding(row, need))
    for facts in nodes.values():
        for unit in units(facts):
            promised = sum(gib for row, gib in rows if unit.uuid in row.gpu_uuids)
            assert promised * GIB <= (unit.total_bytes or 0)


@pytest.mark.parametrize("own", [{"arguments": ("--mlock",)}, {"chat_template": "chatml"}])
def test_the_embedded_llama_cpp_gets_no_words_of_somebodys_own(own: dict[str, object]) -> None:
    embedded = replace(node("a"), engine_versions={"llamacpp": "embedded 0.2.1"})
    server = replace(node("b"), engine_versions={"llamacpp": "7012"})
    asked = ask(None, EngineSettings(**own), Engine.LLAMACPP)  # type: ignore[arg-type]  # a test's shorthand
    both = choose(asked, {embedded.row.id: embedded, server.row.id: server}, NO_ROOM)
    assert chosen(both) == ["b"]
    assert "embedded" in why(both, "a")
    alone = choose(asked, {embedded.row.id: embedded}, NO_ROOM)
    assert chosen(alone) == []
    assert "embedded" in alone.reason
    plain = ask(None, EngineSettings(), Engine.LLAMACPP)
    assert chosen(choose(plain, {embedded.row.id: embedded}, NO_ROOM)) == ["a"]


def test_small_sizes_are_in_kib() -> None:
    sizes = (0, 1, 300 * 1024, 1024**2)
    assert [placing.gib(size) for size in sizes] == ["0 MiB", "1 KiB", "300 KiB", "1 MiB"]
