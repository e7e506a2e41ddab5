"""`cic deployment logs` and `dumps`, against a real admin server and nodes that answer as told."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.admin.ports import NodeLive
from appliance.commands.engine_traces import new_lines
from appliance.domain.ids import NodeId, ReplicaId
from appliance.registry.replicas import Seat
from appliance.wire.command import ExitCode
from appliance.wire.engine_traces import Dump, ProcessDump, ThreadDump
from tests.fakes.admin_site import AdminSite, served
from tests.fakes.command_line import Done, cic
from tests.fakes.tiny_gguf import write_tiny_gguf

DUMP = Dump(
    replica_id="rep_1",
    pid=4711,
    at_ns=1_763_800_000_000_000_000,
    reason="The engine hangs: it does not answer for 30 s.",
    processes=(
        ProcessDump(
            pid=4711,
            name="VLLM::Engine",
            memory_bytes=1_000,
            thread_count=1,
            threads=(ThreadDump(tid=4711, name="main", state="D", waits_in="nv_wait", stack="s1"),),
        ),
    ),
    log=("engine starts",),
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AdminSite]:
    with served(tmp_path) as site:
        yield site


@pytest.fixture
def replicas(site: AdminSite, tmp_path: Path) -> list[tuple[ReplicaId, NodeId]]:
    """`chat`, with a replica on each of two nodes that are heard."""
    model = tmp_path / "tiny.gguf"
    write_tiny_gguf(model)
    for name in ("n1", "n2"):
        made: dict[str, Any] = run(site, "--json", "node", "create", name).json
        site.live.nodes[NodeId(made["id"])] = NodeLive("ready")
    done = run(
        *(site, "deployment", "create", "--name", "chat", "--engine", "llamacpp"),
        *("--model", model, "--replicas", 2),
    )
    assert done.code == 0, done
    rows = site.call(site.services.registry.replicas.list())
    placed = list(zip([row.id for row in rows], site.live.nodes, strict=True))
    for replica_id, node_id in placed:
        site.call(site.services.registry.replicas.place("0:test", replica_id, (Seat(node_id),)))
    return placed


def run(site: AdminSite, *arguments: object) -> Done:
    return cic("--home", site.home.config, *arguments)


def test_the_log_of_each_replica_is_asked_of_its_own_node(
    site: AdminSite, replicas: list[tuple[ReplicaId, NodeId]]
) -> None:
    site.live.answer = msgspec.json.encode(["one", "two", "\x1b[31mthree"])
    found = run(site, "--json", "deployment", "logs", "chat", "--lines", 2).json
    assert found == [
        {"replica": replica, "node": node, "lines": ["two", "\x1b[31mthree"], "problem": ""}
        for (replica, _), node in zip(replicas, ("n1", "n2"), strict=True)
    ]
    assert sorted(site.live.questions) == sorted(
        (node_id, "engine_log", replica_id) for replica_id, node_id in replicas
    )
    shown = run(site, "deployment", "logs", "chat").out
    assert f"==> {replicas[1][0]} on n2 <==\none\ntwo\n\\x1b[31mthree\n" in shown


def test_one_replica_only(site: AdminSite, replicas: list[tuple[ReplicaId, NodeId]]) -> None:
    site.live.answer = b'["one"]'
    done = run(site, "deployment", "logs", "chat", "--replica", replicas[1][0])
    assert (done.code, done.out) == (0, "one\n")
    assert [node_id for node_id, _, _ in site.live.questions] == [replicas[1][1]]
    refused = run(site, "--json", "deployment", "logs", "chat", "--replica", "rep_nope")
    assert (refused.code, refused.error["code"]) == (ExitCode.USAGE, "bad_request")


def test_a_node_that_is_away_is_named_and_not_asked(
    site: AdminSite, replicas: list[tuple[ReplicaId, NodeId]]
) -> None:
    site.live.answer = b'["one"]'
    site.live.nodes[replicas[0][1]] = NodeLive("unreachable")
    away, there = run(site, "--json", "deployment", "logs", "chat").json
    assert away["lines"] == []
    assert "n1 is not heard of" in away["problem"]
    assert there["lines"] == ["one"]
    assert [node_id for node_id, _, _ in site.live.questions] == [replicas[1][1]]

    site.live.nodes[replicas[1][1]] = NodeLive("unreachable")
    done = run(site, "--json", "deployment", "logs", "chat")
    assert (done.code, done.error["code"]) == (ExitCode.FAILED, "node_away")
    assert "cic node show n1" in done.error["next_step"]


def test_an_answer_without_sense_is_the_nodes_fault(
    site: AdminSite, replicas: list[tuple[ReplicaId, NodeId]]
) -> None:
    site.live.answer = b'{"lines": 3}'
    done = run(site, "--json", "deployment", "logs", "chat")
    assert done.error["code"] == "bad_node_answer"


def test_an_external_engine_has_no_log_here(site: AdminSite) -> None:
    run(
        *(site, "deployment", "create", "--name", "far", "--engine", "external"),
        *("--url", "http://127.0.0.1:9/v1"),
    )
    for verb in ("logs", "dumps"):
        done = run(site, "--json", "deployment", verb, "far")
        assert (done.code, done.error["code"]) == (ExitCode.USAGE, "bad_request")
    assert run(site, "--json", "deployment", "logs", "nope").code == ExitCode.NOT_FOUND


def test_dumps_are_listed_shown_and_saved(
    site: AdminSite, replicas: list[tuple[ReplicaId, NodeId]], tmp_path: Path
) -> None:
    site.live.answer = msgspec.json.encode(DUMP)
    listed = run(site, "deployment", "dumps", "chat").out
    assert listed.count("The engine hangs: it does not answer for 30 s.") == 2
    assert "nv_wait" not in listed

    folder = tmp_path / "kept"
    done = run(
        *(site, "deployment", "dumps", "chat", "--replica", replicas[0][0]), *("--save", folder)
    )
    assert "4711 main: D, waits in nv_wait" in done.out
    assert "engine starts" in done.out
    (path,) = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert msgspec.json.decode(path.read_bytes())["dump"]["reason"] == DUMP.reason


def test_that_none_was_ever_taken_is_no_error(
    site: AdminSite, replicas: list[tuple[ReplicaId, NodeId]]
) -> None:
    site.live.answer = b"null"
    found = run(site, "--json", "deployment", "dumps", "chat").json
    assert [(each["dump"], each["at"], each["problem"]) for each in found] == [(None, None, "")] * 2
    assert "none taken" in run(site, "deployment", "dumps", "chat").out


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ([], ["a"], ["a"]),
        (["a", "b"], ["a", "b"], []),
        (["a", "b"], ["b", "c"], ["c"]),
        (["a", "a"], ["a", "a", "a"], ["a"]),
        (["a", "b"], ["x"], ["x"]),
        (["a"], [], []),
    ],
)
def test_what_is_new_of_a_log(before: list[str], now: list[str], new: list[str]) -> None:
    assert list(new_lines(before, now)) == new
