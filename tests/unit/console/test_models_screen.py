"""3 Models: what is shown of models and deployments, in all states and sizes."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.wire.engine import EngineSettings
from appliance.wire.engine_traces import Dump, ProcessDump, ReplicaDump, ReplicaLog
from appliance.wire.models import CatalogueModel, PackCopying, PackSeen
from appliance.wire.placement import Explanation, MemoryNeed, NodeVerdict
from appliance.wire.stream import HistoryPoint, HistorySeries
from console.screens import deployment_traces, models, packs
from console.screens.deployment_traces import new_lines, printable
from console.screens.packs import find_packs
from tests.fakes.console_pilot import NOW, Driven, driven

SIZES = [(80, 24), (160, 48)]
GIB = 1024**3
Opened = Callable[..., AbstractAsyncContextManager[Driven]]


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    monkeypatch.setattr(deployment_traces, "_FOLLOW_S", 0.1)
    monkeypatch.setattr(models, "_ASK_S", 0.1)

    def opened(**how: Any) -> AbstractAsyncContextManager[Driven]:
        return driven(tmp_path / "home", mode="3", **how)

    return opened


def answer(seen: Driven, path: str, what: object) -> None:
    seen.site.answers[path] = msgspec.to_builtins(what)


def explained() -> Explanation:
    return Explanation(
        deployment="llama-3-70b",
        engine="vllm",
        generation=1,
        need=MemoryNeed(
            weights_bytes=7 * GIB,
            kv_cache_bytes=2 * GIB,
            gpus=1,
            per_gpu_bytes=9 * GIB,
            host_bytes=GIB,
            gpu_share=0.5,
            measured=False,
            text="7.0 GiB of weights and 2.0 GiB of KV cache on 1 GPU.",
        ),
        nodes=[
            NodeVerdict(node="gpu-01", chosen=True, running=0, score=90, reasons=[], gpus=["G1"]),
            NodeVerdict(
                node="gpu-00", chosen=False, running=1, score=None, gpus=[], reasons=["off"]
            ),
        ],
        reason="",
        arguments=["--max-model-len", "8192"],
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("condition", ["empty", "busy", "failed"])
async def test_models_in_every_state(
    console: Opened, condition: str, size: tuple[int, int]
) -> None:
    async with console(size=size, condition=condition) as seen:
        await seen.reads("Nothing is deployed" if condition == "empty" else "gemma-2-9b")
        await seen.reads("live 1s")
        await seen.reads("N Deploy")
        if size[0] > 80 and condition != "empty":
            await seen.reads("█▇▄▄▇█")  # the past, as the appliance kept it
        seen.check(f"models-{condition}")


@pytest.mark.parametrize("size", SIZES)
async def test_a_deployment_shows_replicas_and_requests(
    console: Opened, size: tuple[int, int]
) -> None:
    async with console(size=size, condition="failed") as seen:
        await seen.reads("phi-3-mini")
        await seen.press("j", "j", "enter")
        await seen.reads("1 Replicas")
        await seen.reads("llama-3-8b: llama-3-8b")
        await seen.reads("E Scale/edit")
        await seen.reads("▅▆▇██" if size[0] > 80 else "▇██")  # the past, as the appliance kept it
        narrow = size[0] <= 80  # there one of the two is seen, and the heading tells of the other
        await seen.until(lambda: ("v events" in seen.picture()) == narrow)
        seen.check("deployment-failed")


async def test_the_table_follows_what_changes(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("gemma-2-9b")
        seen.site.fleet.tables()["deployments"]["dep_0000"].update(
            state="failed", reason="No node has room.", requests_queued=12
        )
        seen.site.tell()
        await seen.reads("✖ failed")
        assert seen.picture().count("✖ failed") == 1
        await seen.press("j")  # its reason stands above the table while it is selected
        await seen.reads("No node has room.")


async def test_placement_is_explained_in_words(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("llama-3-70b")
        answer(seen, "/v1/deployments/dep_0000/explain", explained())
        await seen.press("j", "enter")
        await seen.reads("1 Replicas")
        await seen.press("e")
        await seen.reads("7.0 GiB of weights")
        await seen.reads("● next here")
        await seen.reads("✖ cannot")
        await seen.reads("1 could take one more")
        seen.check("placement")
        await seen.press("c")
        await seen.reads("--max-model-len 8192")


async def test_engine_logs_are_followed_and_command_no_terminal(console: Opened) -> None:
    path = "/v1/deployments/dep_0000/logs"
    async with console() as seen:
        await seen.reads("llama-3-70b")
        log = ReplicaLog(replica="rep_0", node="gpu-00", lines=["Loading", "\x1b[31mweights"])
        answer(seen, path, [log])
        await seen.press("j", "enter")
        await seen.press("l")
        await seen.reads("Loading")
        assert "\x1b" not in seen.picture()
        more = msgspec.structs.replace(log, lines=["\x1b[31mweights", "Serving"])
        answer(seen, path, [more])
        await seen.reads("Serving")
        assert seen.picture().count("weights") == 1


async def test_a_silent_node_has_no_log_and_says_so(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("llama-3-70b")
        silent = ReplicaLog(replica="rep_0", node="gpu-00", lines=[], problem="It is not heard of.")
        answer(seen, "/v1/deployments/dep_0000/logs", [silent])
        await seen.press("j", "enter")
        await seen.press("l")
        await seen.reads("-- It is not heard of.")
        for _ in range(5):  # said once, however often it is asked
            await seen.pilot.pause(0.02)
        assert seen.picture().count("not heard of") == 1


@pytest.mark.parametrize("size", SIZES)
async def test_the_past_is_drawn_of_what_the_appliance_kept(
    console: Opened, size: tuple[int, int]
) -> None:
    now_s = int(NOW.timestamp())
    series = [
        HistorySeries(
            series=name,
            of="gemma-2-9b",
            unit=unit,
            step_s=10,
            points=[
                HistoryPoint(now_s - 10 * at, float(at % 90), float(at % 90))
                for at in range(350, 0, -1)
            ],
        )
        for name, unit in (
            ("output_tokens_per_s", "tok/s"),
            ("first_token_p95_ms", "ms"),
            ("queued", ""),
        )
    ]
    async with console(size=size) as seen:
        await seen.reads("gemma-2-9b")
        answer(seen, "/v1/history", series)
        await seen.press("enter")
        await seen.press("h")
        await seen.reads("gemma-2-9b, the last 1h")
        await seen.reads("first token p95")
        await seen.reads("most 89 tok/s")
        seen.check("deployment-history")
        await seen.press("t")
        await seen.reads("the last 24h")
        answer(seen, "/v1/history", [])
        await seen.press("t")
        await seen.reads("the last 30d")
        await seen.reads("Nothing is kept of it yet")


async def test_dumps_of_engines_that_hung(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("llama-3-70b")
        process = ProcessDump(pid=7, name="vllm", memory_bytes=1, thread_count=1, threads=())
        dump = Dump(
            replica_id="rep_0",
            pid=7,
            at_ns=1,
            reason="The engine hangs.",
            processes=(process,),
            log=("last line",),
        )
        row = ReplicaDump(replica="rep_0", node="gpu-00", at="2026-11-23T19:00:00Z", dump=dump)
        answer(seen, "/v1/deployments/dep_0000/dumps", [row])
        await seen.press("j", "enter")
        await seen.press("u")
        await seen.reads("The engine hangs.")
        await seen.reads("last line")


async def test_the_catalogue_and_a_pack_that_lies_here(
    console: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    pack = stick / "qwen.modelpack"
    pack.write_bytes(b"x" * 2048)
    monkeypatch.setattr(packs, "_PLACES", (str(stick),))
    async with console() as seen:
        await seen.reads("gemma-2-9b")
        answer(seen, "/v1/models/catalogue", [catalogue_model()])
        answer(seen, "/v1/models/packs/look", pack_seen())
        await seen.press("c")
        await seen.reads("qwen.modelpack")
        await seen.reads("2.00K")
        await seen.reads("Qwen2.5-7B")
        await seen.press("enter")
        await seen.reads("not trusted by this site yet")
        await seen.reads("You may use it.")
        await seen.press("I")
        await seen.reads("Trust that publisher")
        # Wherever the folder's long name breaks the line.
        await seen.until(
            lambda: "model import" in " ".join(seen.picture().replace("│", "").split())
        )
        await seen.press("escape")
        await seen.press("escape")
        await seen.press("tab", "enter")
        await seen.reads("Qwen 2.5 7B")


async def test_a_broken_pack_says_why(
    console: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.modelpack").write_bytes(b"x")
    monkeypatch.setattr(packs, "_PLACES", (str(tmp_path),))
    async with console() as seen:
        await seen.press("c")
        await seen.reads("bad.modelpack")
        seen.site.faults.status = 422
        await seen.press("enter")
        await seen.reads("✖ It broke. Look at its log.")


async def test_an_import_says_how_far_it_is(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("gemma-2-9b")
        copying = PackCopying(model="qwen", done_bytes=3, total_bytes=4, resumed_bytes=0)
        answer(seen, "/v1/models/packs/copying", copying)
        seen.app.tasks.begin("Import pack", "cic model import", seen.app.now())
        await seen.reads("importing qwen 3B of 4B 75%")


async def test_a_viewer_is_offered_nothing(console: Opened) -> None:
    async with console(role="viewer") as seen:
        await seen.reads("gemma-2-9b")
        await seen.reads("viewer")
        assert "X Delete" not in seen.picture()
        await seen.press("X")
        await seen.reads("needs the role admin")
        await seen.press("j", "enter")
        await seen.reads("1 Replicas")
        assert "X Delete" not in seen.picture()


async def test_a_deployment_that_goes_is_told(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("gemma-2-9b")
        await seen.press("enter")
        await seen.reads("1 Replicas")
        tables = seen.site.fleet.tables()
        (gone,) = [r for r, row in tables["deployments"].items() if row["name"] == "gemma-2-9b"]
        del tables["deployments"][gone]
        for replica in [
            r for r, row in tables["replicas"].items() if row["deployment"] == "gemma-2-9b"
        ]:
            del tables["replicas"][replica]
        seen.site.tell()
        await seen.reads("This deployment is no more.")
        assert "E Scale/edit" not in seen.picture()


async def test_ascii_stays_ascii(console: Opened) -> None:
    async with console(ascii_only=True, condition="failed") as seen:
        await seen.reads("gemma-2-9b")
        await seen.press("enter")
        await seen.reads("1 Replicas")


def catalogue_model() -> CatalogueModel:
    return CatalogueModel(
        name="Qwen2.5-7B",
        title="Qwen 2.5 7B",
        family="qwen",
        architecture="qwen2",
        context_tokens=32_768,
        licence="Apache-2.0",
        parameters=7_600_000_000,
        weights_bytes=15 * GIB,
        cache_bytes_per_token=57_344,
        gpu_memory_bytes=18 * GIB,
        input_price_micros=200_000,
        output_price_micros=None,
        engines=["vllm"],
        settings={"vllm": EngineSettings(gpus=1)},
        minimum_driver="550.54",
    )


def pack_seen() -> PackSeen:
    return PackSeen(
        name="qwen",
        version="1",
        family="qwen",
        architecture="qwen2",
        context_tokens=32_768,
        digest="sha256:" + "0" * 64,
        size_bytes=15 * GIB,
        files=4,
        licence="Apache-2.0",
        licence_text="You may use it.\x1b[2J",
        licence_sha256="1" * 64,
        licence_accepted=False,
        publisher="ab" * 32,
        publisher_trusted=False,
        minimum_driver="",
        golden=True,
    )


def test_packs_are_found_a_little_below_and_nothing_hidden(tmp_path: Path) -> None:
    for name in ("a.modelpack", "x/b.modelpack", ".trash/c.modelpack", "1/2/3/4/d.modelpack"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12")
    (tmp_path / "again.modelpack").symlink_to(tmp_path / "a.modelpack")
    (tmp_path / "gone.modelpack").symlink_to(tmp_path / "nowhere")
    found = find_packs([str(tmp_path), str(tmp_path / "missing")])
    assert [Path(each.path).name for each in found] == ["a.modelpack", "b.modelpack"]
    assert found[0].size_bytes == 2
    assert find_packs([str(tmp_path)], folders_max=1) == found[:1]


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ([], ["a"], ["a"]),
        (["a", "b"], ["b", "c"], ["c"]),
        (["a", "b"], ["a", "b"], []),
        (["a", "b"], ["x"], ["x"]),
        (["a", "b"], [], []),
    ],
)
def test_what_a_log_has_beyond_what_was_seen(
    before: list[str], now: list[str], new: list[str]
) -> None:
    assert list(new_lines(before, now)) == new


def test_a_line_commands_no_terminal() -> None:
    assert printable("a\x1b[2J\tb") == "a [2J b"


async def test_a_form_that_changes_nothing_is_not_sent(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("E Scale/edit")
        await seen.press("E")
        await seen.reads("Nothing is different yet.")
        await seen.until(lambda: len(seen.app.screen_stack) == 2)
        await seen.press(*["tab"] * 9, "enter")
        await seen.until(lambda: seen.picture().count("Nothing is different yet.") == 2)
        assert seen.app.is_running
