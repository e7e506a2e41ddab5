"""When a machine watches for its end, and what it then tells."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from agent.errors import MetadataAway
from agent.metadata import Aws, Azure, Cloud, Ending, Gcp
from agent.preemption import Watch, detect, metadata_of, soonest
from appliance.wire.agent import PreemptionNotice
from tests.fakes.clock import ManualClock

SECOND_NS = 1_000_000_000


class Told:
    """A metadata service that says what the test says; an exception is raised."""

    cloud: Cloud = "gcp"
    poll_s = 0.001

    def __init__(self) -> None:
        self.says: tuple[Ending, ...] | MetadataAway = ()
        self.rounds = 0

    async def endings(self) -> tuple[Ending, ...]:
        self.rounds += 1
        if isinstance(self.says, MetadataAway):
            raise self.says
        return self.says


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


def firmware(folder: Path, **lines: str) -> Path:
    for name, line in lines.items():
        (folder / name).write_text(line + "\n")
    return folder


@pytest.mark.parametrize(
    ("lines", "cloud"),
    [
        ({"sys_vendor": "Amazon EC2", "product_name": "g5.xlarge"}, "aws"),
        ({"sys_vendor": "Xen", "bios_version": "4.11.amazon"}, "aws"),
        ({"sys_vendor": "Xen", "bios_version": "4.14"}, None),
        ({"sys_vendor": "Google", "product_name": "Google Compute Engine"}, "gcp"),
        ({"chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"}, "azure"),
        # Hyper-V in an own server room: the vendor alone is not Azure.
        ({"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine"}, None),
        ({"sys_vendor": "Supermicro"}, None),
        ({}, None),
    ],
)
def test_the_firmware_names_the_cloud(
    lines: dict[str, str], cloud: Cloud | None, tmp_path: Path
) -> None:
    assert detect(firmware(tmp_path, **lines)) == cloud


async def test_what_is_told_wins_over_what_is_detected(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    dmi = firmware(tmp_path, sys_vendor="Amazon EC2")

    def of(watching: str) -> object:
        return metadata_of(watching, None, {}, session, lambda: True, dmi)  # type: ignore[arg-type]  # every word of it is tried

    assert isinstance(of("auto"), Aws)
    assert isinstance(of("gcp"), Gcp)
    assert isinstance(of("azure"), Azure)
    assert of("off") is None


async def test_a_machine_in_no_cloud_asks_nobody(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    assert metadata_of("auto", None, {}, session, lambda: True, tmp_path) is None


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.001)


async def test_a_notice_is_told_at_once_stands_in_silence_and_ends_when_taken_back(
    tmp_path: Path,
) -> None:
    told, clock, changes = Told(), ManualClock(), []
    watch = Watch(told, clock, lambda: changes.append(1), tmp_path / "notice.json")
    task = asyncio.create_task(watch.run())
    try:
        await until(lambda: told.rounds > 1)
        assert (watch.notice(), changes) == (None, [])
        seen_ns = clock.wall_ns()
        told.says = (Ending("gcp-preempted", None, 30, "preempted"),)
        await until(lambda: watch.notice() is not None)
        expected = PreemptionNotice(
            source="gcp", at_ns=seen_ns + 30 * SECOND_NS, seen_ns=seen_ns, detail="preempted"
        )
        assert (watch.notice(), changes) == (expected, [1])
        clock.turn(10)
        rounds = told.rounds
        await until(lambda: told.rounds > rounds + 1)
        assert (watch.notice(), changes) == (expected, [1])  # time passes; the end stays put
        told.says = MetadataAway("silence")
        rounds = told.rounds
        await until(lambda: told.rounds > rounds)
        assert watch.notice() == expected
        told.says = ()
        await until(lambda: watch.notice() is None)
        assert changes == [1, 1]
    finally:
        task.cancel()


async def test_a_restart_of_the_agent_gives_no_time_more(tmp_path: Path) -> None:
    told, clock = Told(), ManualClock()
    told.says = (Ending("gcp-preempted", None, 30, "preempted"),)
    notices = []
    for _start in range(2):
        watch = Watch(told, clock, lambda: None, tmp_path / "notice.json")
        rounds = told.rounds
        task = asyncio.create_task(watch.run())
        await until(lambda seen=rounds: told.rounds > seen + 1)  # type: ignore[misc]  # bound now
        task.cancel()
        notices.append(watch.notice())
        clock.turn(20)
    assert notices[0] == notices[1] is not None


async def test_an_old_notice_is_not_remembered(tmp_path: Path) -> None:
    told, clock = Told(), ManualClock()
    told.says = (Ending("gcp-preempted", None, 30, "preempted"),)
    first = Watch(told, clock, lambda: None, tmp_path / "notice.json")
    task = asyncio.create_task(first.run())
    await until(lambda: first.notice() is not None)
    task.cancel()
    assert Watch(told, clock, lambda: None, tmp_path / "notice.json").notice() is not None
    clock.turn(3_600)
    assert Watch(told, clock, lambda: None, tmp_path / "notice.json").notice() is None


async def test_a_full_disk_keeps_no_notice_from_the_appliance(tmp_path: Path) -> None:
    told = Told()
    told.says = (Ending("gcp-preempted", None, 30, "preempted"),)
    watch = Watch(told, ManualClock(), lambda: None, tmp_path / "missing" / "notice.json")
    task = asyncio.create_task(watch.run())
    try:
        await until(lambda: watch.notice() is not None)
    finally:
        task.cancel()


def test_the_first_end_counts() -> None:
    endings = (
        Ending("host", 900 * SECOND_NS, 0, "retirement"),
        Ending("spot", None, 30, "preempted"),
    )
    notice = soonest(endings, {"host": SECOND_NS, "spot": 600 * SECOND_NS}, "aws")
    assert notice is not None
    assert (notice.detail, notice.at_ns) == ("preempted", 630 * SECOND_NS)
    assert soonest((), {}, "aws") is None
