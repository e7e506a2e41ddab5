"""The machine beside its GPUs: made-up /proc and /sys trees, what they are taken for, and when."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.gpu.faults import CLEAR_S, Condition, FaultTracker
from agent.gpu.health import FAILED_BELOW, Reading, node_health
from agent.gpu.messages import DriverFailed, encode
from agent.gpu.watch import GpuWatch
from agent.host_faults import HOST_FAULTS, host_conditions
from agent.host_figures import HostFigures, HostReader, Port
from agent.host_watch import HUNG_S, HostWatch
from appliance.domain.clock import SystemClock
from tests.fakes.clock import ManualClock

GIB = 1024**3


class Machine:
    """The files of a kernel, as they were seen on real machines."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/loadavg", "1.10 1.30 1.20 2/310 4242\n")
        self.pressure("memory", full=0.0)
        self.pressure("cpu", some=12.0)
        self.memory(total_gib=64, available_gib=40)
        self.write("proc/vmstat", "nr_free_pages 100\npswpin 5\npswpout 7\noom_kill 0\n")
        self.port("eth0")
        self.write("sys/class/net/docker0/carrier", "1\n")  # no hardware behind it
        self.throttled(0)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def pressure(self, of: str, *, some: float = 0.0, full: float = 0.0) -> None:
        def line(name: str, share: float) -> str:
            return f"{name} avg10={share:.2f} avg60={share:.2f} avg300={share:.2f} total=9\n"

        self.write(f"proc/pressure/{of}", line("some", some) + line("full", full))

    def memory(self, *, total_gib: int, available_gib: float) -> None:
        total, available = total_gib * 1024**2, int(available_gib * 1024**2)
        self.write(
            "proc/meminfo",
            f"MemTotal:       {total} kB\nMemFree:  9 kB\nMemAvailable:   {available} kB\n",
        )

    def port(self, name: str, *, up: bool = True, speed: int = 10_000, **counts: int) -> None:
        folder = f"sys/class/net/{name}"
        self.write(f"{folder}/device/vendor", "0x8086\n")
        self.write(f"{folder}/carrier", "1\n" if up else "0\n")
        self.write(f"{folder}/speed", f"{speed if up else -1}\n")
        for kind in ("rx_errors", "tx_errors", "rx_dropped", "tx_dropped", "rx_packets"):
            self.write(f"{folder}/statistics/{kind}", f"{counts.get(kind, 0)}\n")

    def throttled(self, ms: int) -> None:
        for core in range(2):
            folder = f"sys/devices/system/cpu/cpu{core}/thermal_throttle"
            self.write(f"{folder}/package_throttle_total_time_ms", f"{ms}\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root")


@pytest.fixture
def reader(machine: Machine, tmp_path: Path) -> HostReader:
    return HostReader(tmp_path, cores=4, root=machine.root)


def codes(figures: HostFigures, *raised: str) -> list[str]:
    return [condition.code for condition in host_conditions(figures, raised)]


def test_a_machine_in_good_health_has_no_fault(machine: Machine, reader: HostReader) -> None:
    figures = reader.read(0.0)
    assert (figures.load, figures.cpu_waits, figures.memory_stalls) == (1.2, 12.0, 0.0)
    assert figures.memory_total_bytes == 64 * GIB
    assert [(port.name, port.up, port.mbit_per_s) for port in figures.ports] == [
        ("eth0", True, 10_000)
    ]
    assert figures.disk_total_bytes
    assert codes(figures) == []


def test_a_kernel_that_tells_nothing_is_no_fault(tmp_path: Path) -> None:
    figures = HostReader(tmp_path, cores=2, root=tmp_path / "nothing").read(0.0)
    assert (figures.load, figures.memory_total_bytes, figures.ports) == (None, None, ())
    assert codes(figures) == []


def test_engines_that_take_every_core_are_what_a_node_is_for(
    machine: Machine, reader: HostReader
) -> None:
    """llama.cpp on four cores, and its start beside others: everything waits for a core."""
    machine.write("proc/loadavg", "31.0 28.0 24.0 30/310 4242\n")
    machine.pressure("cpu", some=99.9)
    assert codes(reader.read(0.0)) == []


def test_what_everything_waits_for_all_the_time_is_told(
    machine: Machine, reader: HostReader
) -> None:
    machine.write("proc/loadavg", "40.0 40.0 40.0 30/310 4242\n")
    machine.pressure("cpu", some=99.0)
    assert codes(reader.read(0.0)) == ["PROCESSOR_OVERLOADED"]
    machine.pressure("cpu", some=50.0)  # in a queue for the disk, and not for cores
    assert codes(reader.read(1.0)) == []


@pytest.mark.parametrize(("available_gib", "found"), [(2.0, ["MEMORY_LOW"]), (3.0, [])])
def test_want_of_memory(
    machine: Machine, reader: HostReader, available_gib: float, found: list[str]
) -> None:
    machine.memory(total_gib=64, available_gib=available_gib)
    assert codes(reader.read(0.0)) == found
    machine.pressure("memory", full=25.0)
    assert codes(reader.read(1.0)) == ["MEMORY_PRESSURE", *found]


def test_on_the_edge_a_fault_stays_what_it_is() -> None:
    def at(stalls: float, *raised: str) -> list[str]:
        return codes(HostFigures(memory_stalls=stalls), *raised)

    assert at(7.0) == []
    assert at(7.0, "MEMORY_PRESSURE") == ["MEMORY_PRESSURE"]
    assert at(4.0, "MEMORY_PRESSURE") == []
    low = HostFigures(disk_total_bytes=100 * GIB, disk_free_bytes=int(5.5 * GIB))
    assert codes(low) == []
    assert codes(low, "DISK_LOW") == ["DISK_LOW"]


def test_counters_are_those_of_the_last_minute(machine: Machine, reader: HostReader) -> None:
    reader.read(0.0)
    machine.write("proc/vmstat", "pswpin 50005\npswpout 20007\n")
    machine.throttled(8_000)
    machine.port("eth0", rx_errors=300, tx_errors=0, rx_dropped=200, rx_packets=10_000)
    figures = reader.read(30.0)
    assert (figures.swapped_pages, figures.throttled_ms) == (70_000, 8_000)
    assert [(port.errors, port.packets) for port in figures.ports] == [(500, 10_000)]
    assert codes(figures) == ["SWAPPING", "PROCESSOR_HOT", "LINK_ERRORS"]
    for now_s in (60.0, 90.0):
        figures = reader.read(now_s)
    assert (figures.swapped_pages, figures.throttled_ms) == (0, 0)
    assert codes(figures) == []


def test_links_that_were_up_and_are_not_or_are_slower(machine: Machine, reader: HostReader) -> None:
    machine.port("eth1", up=False)  # never used: no fault
    assert codes(reader.read(0.0)) == []
    machine.port("eth0", speed=100)
    (slow,) = host_conditions(reader.read(1.0), ())
    assert slow.message == (
        "A network link is slower than it was: eth0 at 100 instead of 10,000 Mbit/s."
    )
    machine.port("eth0", up=False)
    (down,) = host_conditions(reader.read(2.0), ())
    assert (down.code, down.message) == (
        "LINK_DOWN",
        "A network link that was up is down: eth0.",
    )
    machine.port("eth0")
    assert codes(reader.read(3.0)) == []


def test_a_few_broken_packets_or_a_small_share_are_no_fault() -> None:
    def lossy(errors: int, packets: int) -> list[str]:
        return codes(HostFigures(ports=(Port("e", up=True, errors=errors, packets=packets),)))

    assert lossy(20, 30) == []
    assert lossy(1_000, 1_000_000) == []
    assert lossy(1_000, 50_000) == ["LINK_ERRORS"]


@pytest.mark.parametrize(
    ("free", "total", "found"),
    [
        (4 * GIB, 100 * GIB, ["DISK_LOW"]),
        (40 * GIB, 1_000 * GIB, []),  # four percent, and room for any model
        (GIB, 4 * GIB, []),
        (GIB // 8, 100 * GIB, ["DISK_FULL"]),
    ],
)
def test_a_disk_that_fills(free: int, total: int, found: list[str]) -> None:
    assert codes(HostFigures(disk_free_bytes=free, disk_total_bytes=total)) == found


def test_no_fault_of_the_host_keeps_engines_from_the_node_and_each_says_what_to_do() -> None:
    faults = [Condition(code, kind, f"{kind.message}.") for code, kind in HOST_FAULTS.items()]
    health = node_health(faults, Reading(100), Reading(100), floor=0)
    assert health.state == "degraded"
    assert health.score >= FAILED_BELOW
    lowered = {part.name for part in health.parts if part.score < 100}
    assert lowered == {"memory", "processor", "network", "faults"}
    assert all(kind.next_step.endswith(".") for kind in HOST_FAULTS.values())


def test_a_moment_is_no_fault_and_what_comes_and_goes_is_one() -> None:
    tracker = FaultTracker(-100.0)
    low = host_conditions(HostFigures(memory_total_bytes=100, memory_available_bytes=1), ())
    assert tracker.update(low, 0.0, 0) == []
    assert [f.code for f in tracker.update(low, 10.0, 0)] == ["MEMORY_LOW"]
    assert [f.code for f in tracker.update([], 15.0, 0)] == ["MEMORY_LOW"]
    assert tracker.update([], 10.0 + CLEAR_S, 0) == []


class HangingReader:
    """Waits for a disk until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.reads = 0

    def read(self, now_s: float) -> HostFigures:
        del now_s
        self.reads += 1
        assert self.go.wait(10)
        return HostFigures(memory_stalls=50.0)


@pytest.fixture
def hanging() -> Iterator[HangingReader]:
    reader = HangingReader()
    yield reader
    reader.go.set()


async def test_a_disk_that_hangs_is_told_and_asked_once(hanging: HangingReader) -> None:
    clock = ManualClock()
    watch = HostWatch(hanging, clock)
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(0.05)
    assert watch.conditions() == ()
    clock.turn(HUNG_S + 1)
    (hung,) = watch.conditions()
    assert hung.message == "The disk of the node's folder does not answer: for 16 s."
    assert hanging.reads == 1
    hanging.go.set()
    async with asyncio.timeout(5):
        while [c.code for c in watch.conditions()] != ["MEMORY_PRESSURE"]:  # noqa: ASYNC110 - a thread tells nobody
            await asyncio.sleep(0.01)
    running.cancel()


class Reads:
    def __init__(self, figures: HostFigures) -> None:
        self.figures = figures

    def read(self, now_s: float) -> HostFigures:
        del now_s
        return self.figures


async def test_a_node_without_gpus_tells_of_its_host(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.gpu.watch.nvidia_hardware", lambda: False)
    caplog.set_level("INFO")
    said = encode(DriverFailed(trouble="NO_DRIVER", detail="")).decode()
    no_reader = ("/bin/sh", "-c", f"echo '{said}'")
    reads = Reads(HostFigures(memory_stalls=30.0))
    watch = GpuWatch(tmp_path, "boot-1", SystemClock(), no_reader)
    watch.host = HostWatch(reads, SystemClock())
    tasks = [asyncio.create_task(watch.host.run()), asyncio.create_task(watch.run())]
    async with asyncio.timeout(20):
        while watch.health is None or watch.health.state != "degraded":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    parts = {part.name: part for part in watch.health.parts}
    assert parts["memory"].score == 40
    assert "See what uses it" in parts["memory"].reason
    assert [fault.code for fault in watch.health.faults] == ["MEMORY_PRESSURE"]
    assert watch.health.faults[0].gpu_uuid is None
    assert any(r.message == "fault raised" for r in caplog.records)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
