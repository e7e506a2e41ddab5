"""What the health checks find, each from good to bad, and how a run keeps its promises."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from appliance.admin.errors import ChecksRunning
from appliance.checking import standing
from appliance.checking.books import integrity_found, tip_found
from appliance.checking.disk import latency_found, room_found, write_times_s
from appliance.checking.engines import has_token
from appliance.checking.findings import Check, Finding, aside, good, size, span
from appliance.checking.host import clock_found, files_found, loop_found, meminfo, memory_found
from appliance.checking.host import mode_findings as modes
from appliance.checking.runner import Checks
from appliance.domain.clock import SystemClock
from appliance.domain.errors import CrossLogicError
from appliance.wire.backups import Backup, BackupList
from appliance.wire.checks import CheckResult
from appliance.wire.home import find_home
from tests.fakes.sync_port import ENTITLEMENT, STATUS

GIB = 1 << 30


def disk(free: int, whole: int, files: int = 1_000, files_free: int = 900) -> os.statvfs_result:
    return os.statvfs_result((1, 1, whole, free, free, files, files_free, files_free, 0, 255))


@pytest.mark.parametrize(
    ("there", "outcome"),
    [
        (disk(500 * GIB, 1_000 * GIB), "ok"),
        (disk(80 * GIB, 1_000 * GIB), "warning"),
        (disk(9 * GIB, 20 * GIB), "warning"),
        (disk(15 * GIB, 1_000 * GIB), "failed"),
        (disk(GIB - 1, 2 * GIB), "failed"),
        (disk(0, 0), "failed"),
        (disk(500 * GIB, 1_000 * GIB, 1_000, 10), "warning"),
        (disk(500 * GIB, 1_000 * GIB, 0, 0), "ok"),  # a file system without inodes
    ],
)
def test_room_on_a_disk(there: os.statvfs_result, outcome: str) -> None:
    found = room_found("/srv", there)
    assert (found.outcome, found.subject) == (outcome, "/srv")
    assert bool(found.fix) == (outcome != "ok")


def test_writes_are_timed_and_leave_nothing(tmp_path: Path) -> None:
    times = write_times_s(tmp_path)
    assert len(times) > 4
    assert list(tmp_path.iterdir()) == []
    assert latency_found([0.001, 0.002, 0.003]).outcome == "ok"
    assert latency_found([0.001, 0.001, 2.0]).outcome == "warning"
    assert latency_found([0.2, 0.2, 0.2]).outcome == "warning"
    assert latency_found([2.0, 2.0]).outcome == "failed"


def test_memory_files_loop_and_clock() -> None:
    text = "MemTotal: 1000 kB\nMemAvailable: 500 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\nBad\n"
    figures = meminfo(text)
    assert figures["MemTotal"] == 1_024_000
    assert memory_found(figures).outcome == "ok"
    assert "6.0 KiB swapped" in memory_found(figures).seen
    assert memory_found({**figures, "MemAvailable": 60_000}).outcome == "warning"
    assert memory_found({**figures, "MemAvailable": 6_000}).outcome == "failed"
    assert memory_found({}).outcome == "skipped"
    assert files_found(40, 20_000).outcome == "ok"
    assert files_found(40, 1_024).outcome == "warning"
    assert files_found(15_000, 20_000).outcome == "warning"
    assert files_found(19_000, 20_000).outcome == "failed"
    assert loop_found([0.001, 0.002]).outcome == "ok"
    assert loop_found([0.001, 0.6]).outcome == "warning"
    assert loop_found([0.6, 0.6]).outcome == "failed"
    assert clock_found(0, 0.002).outcome == "ok"
    assert clock_found(0, 3.0).outcome == "warning"
    assert clock_found(5, 0.0).outcome == "warning"
    assert clock_found(-1, 0.0).outcome == "skipped"


def test_a_file_that_others_can_read_is_named_with_what_to_type(tmp_path: Path) -> None:
    home = find_home(str(tmp_path), {})
    home.secrets.mkdir(mode=0o700)
    for name in ("seal-key", "api-key-pepper"):
        (home.secrets / name).write_bytes(b"x" * 32)
        (home.secrets / name).chmod(0o600)
    home.config_file.write_text("")
    home.config_file.chmod(0o640)
    tmp_path.chmod(0o750)
    assert [f.outcome for f in modes(home)] == ["ok"]
    (home.secrets / "seal-key").chmod(0o640)
    home.config_file.chmod(0o666)
    found = {f.subject: f for f in modes(home)}
    assert found[str(home.secrets / "seal-key")].outcome == "failed"
    assert found[str(home.secrets / "seal-key")].fix.startswith("chmod 600 ")
    assert found[str(home.config_file)].outcome == "warning"


def test_a_registry_that_is_none_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    assert integrity_found(path, 5.0).outcome == "failed"
    assert tip_found(path).outcome == "skipped"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.executemany("INSERT INTO t VALUES (?)", [(b"x" * 900,)] * 200)
    connection.commit()
    connection.close()
    assert integrity_found(path, 5.0).outcome == "ok"
    content = bytearray(path.read_bytes())
    content[5_000:9_000] = b"\xff" * 4_000
    path.write_bytes(content)
    assert integrity_found(path, 5.0).outcome == "failed"


def test_how_the_site_stands_with_its_control_plane() -> None:
    def found(**changes: object) -> Finding:
        return standing.sync_found(msgspec.structs.replace(STATUS, **changes))

    assert found(lag_manifests=0, lag_age_s=0).outcome == "ok"
    assert found(lag_age_s=7_200).outcome == "warning"
    assert found(last_error="Connection refused.").outcome == "warning"
    assert found(last_error="Connection refused.", lag_age_s=90_000).outcome == "failed"
    assert found(alarm="other_head", alarm_detail="Two histories.").outcome == "failed"
    assert found(state="never enrolled").outcome == "skipped"
    assert found(mode="offline", lag_age_s=100).outcome == "ok"
    assert found(mode="offline", lag_age_s=90_000).outcome == "warning"


def test_the_entitlement_by_its_stage() -> None:
    for stage, outcome in (
        *(("active", "ok"), ("none", "skipped"), ("warning", "warning"), ("grace", "warning")),
        *(("frozen", "failed"), ("throttled", "failed")),
    ):
        status = msgspec.structs.replace(ENTITLEMENT, stage=stage, days_left=90)
        assert standing.entitlement_found(status).outcome == outcome, stage
    soon = msgspec.structs.replace(ENTITLEMENT, stage="active", days_left=3)
    assert standing.entitlement_found(soon).outcome == "warning"


def test_backups_by_their_age_and_key() -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)

    def found(days: float | None, **changes: str) -> str:
        made = (now - timedelta(days=days or 0)).isoformat().replace("+00:00", "Z")
        one = Backup(
            path="/b/x", made_at=made, product="1", size_bytes=1, protection="key", key_id="ab"
        )
        listed = BackupList(
            folder="/b", backups=[] if days is None else [one], due_at=None, last_error="",
            key_kept=True,
        )  # fmt: skip
        return standing.backup_found(msgspec.structs.replace(listed, **changes), now).outcome

    assert found(1.0) == "ok"
    assert found(8.0) == "warning"
    assert found(None) == "warning"
    assert found(1.0, next_step="Keep a copy elsewhere.") == "warning"
    assert found(1.0, last_error="No space left.") == "failed"


def test_an_answer_without_a_token_is_none() -> None:
    assert has_token(b'{"choices": [{"message": {"content": "x"}}]}')
    assert has_token(b'{"data": [{"embedding": [0.1]}]}')
    for content in (b"", b"[]", b"{}", b"null", b'{"choices": []}', b'{"data": [{}]}', b"\xff"):
        assert not has_token(content), content


async def results(checks: Checks, only: str = "") -> list[CheckResult]:
    return [result async for result in checks.run(only)]


def check(name: str, *findings: Finding, deadline_s: float = 5.0) -> Check:
    async def look() -> Sequence[Finding]:
        return findings

    return Check(name, "It matters.", look, deadline_s)


async def test_what_hangs_fails_or_breaks_is_told_and_hides_nothing() -> None:
    async def hangs() -> Sequence[Finding]:
        await asyncio.Event().wait()
        return []

    async def refuses() -> Sequence[Finding]:
        raise CrossLogicError("The disk says no.", next_step="Replace it.")

    async def breaks() -> Sequence[Finding]:
        raise RuntimeError("a defect")

    async def reads() -> Sequence[Finding]:
        raise FileNotFoundError(2, "No such file or directory", "/x")

    checks = Checks(
        [
            Check("hangs", "", hangs, 0.05),
            Check("refuses", "", refuses),
            Check("breaks", "", breaks),
            Check("reads", "", reads),
            check("nothing"),
            check("two", good("a", "1"), good("b", "2")),
        ],
        SystemClock(),
    )
    found = {f"{r.name}{r.subject}": r for r in await results(checks)}
    assert {name: r.outcome for name, r in found.items()} == {
        **dict.fromkeys(("hangs", "refuses", "breaks", "reads"), "failed"),
        "nothing": "skipped",
        "two1": "ok",
        "two2": "ok",
    }
    assert found["refuses"].fix == "Replace it."
    assert "/x" in found["reads"].seen
    assert "0.0 s" not in found["hangs"].seen
    assert "50.0 ms" in found["hangs"].seen
    assert {r.number for r in found.values()} == set(range(1, 8))
    assert max(r.total for r in found.values()) == 7
    assert [r.name for r in await results(checks, "two")] == ["two", "two"]


async def test_one_run_at_a_time_and_who_leaves_leaves_nothing_behind() -> None:
    waiting = asyncio.Event()

    async def slow() -> Sequence[Finding]:
        await waiting.wait()
        return [good("at last")]

    checks = Checks([check("quick", good("now")), Check("slow", "", slow)], SystemClock())
    first = checks.run()
    assert (await anext(first)).name == "quick"
    with pytest.raises(ChecksRunning):
        await anext(checks.run())
    await first.aclose()  # type: ignore[attr-defined]  # it is a generator
    waiting.set()
    assert [r.name for r in await results(checks)] == ["quick", "slow"]


async def test_what_blocks_runs_aside_and_its_error_comes_back() -> None:
    assert await aside(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await aside(lambda: 1 // 0)
    hung = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await aside(hung.wait)
    hung.set()


def test_words() -> None:
    assert (size(5), size(2_048), size(3 << 40)) == ("5 B", "2.0 KiB", "3.0 TiB")
    assert (span(0.0021), span(4.2), span(600), span(9_000), span(400_000)) == (
        *("2.1 ms", "4.2 s", "10 min", "2 h", "5 d"),
    )
