"""The reading process against a real library file: figures, faults, a driver that hangs or dies."""

import contextlib
import ctypes
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.gpu.messages import DriverFailed, DriverRead, GpuFailed, GpuRead, Line, XidSeen, decode
from tests.fakes.nvml_library import (
    LOST,
    MISMATCH,
    NOT_LOADED,
    NOT_SUPPORTED,
    FakeGpus,
    build_library,
)

WAIT_S = 10.0


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def gpus(library: Path, tmp_path: Path) -> FakeGpus:
    return FakeGpus(library, tmp_path)


class Reader:
    """The process, and its lines as they come."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent.gpu.reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environ},
        )
        self._lines: queue.Queue[Line | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            self._lines.put(decode(raw))
        self._lines.put(None)

    def wait_for(self, fits: Callable[[Line], bool], wait_s: float = WAIT_S) -> Any:
        """Raises queue.Empty when no such line comes in time."""
        until_s = time.monotonic() + wait_s
        while True:
            line = self._lines.get(timeout=max(0.0, until_s - time.monotonic()))
            assert line is not None, "the reader ended"
            if fits(line):
                return line

    def xid(self, gpus: FakeGpus, index: int, number: int) -> Any:
        """What it says of that Xid, which is sent until somebody listens for those of the GPU."""
        until_s = time.monotonic() + WAIT_S
        while True:
            gpus.xid(index, number)
            with contextlib.suppress(queue.Empty):
                return self.wait_for(
                    lambda line: isinstance(line, XidSeen) and line.xid == number, 1
                )
            assert time.monotonic() < until_s, f"Xid {number} of GPU {index} is never told"

    def gpu(self, index: int) -> Any:
        return self.wait_for(lambda x: isinstance(x, GpuRead) and x.gpu.index == index).gpu

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(WAIT_S)


@pytest.fixture
def start() -> Iterator[Callable[[FakeGpus], Reader]]:
    readers: list[Reader] = []

    def begin(gpus: FakeGpus) -> Reader:
        readers.append(Reader(gpus.environ))
        return readers[-1]

    yield begin
    for reader in readers:
        reader.process.kill()
        reader.process.wait(WAIT_S)
        for stream in (reader.process.stdin, reader.process.stdout):
            assert stream is not None
            stream.close()


Start = Callable[[FakeGpus], Reader]


def test_every_figure_is_what_the_driver_tells(gpus: FakeGpus, start: Start) -> None:
    gpus.set(
        0,
        name="NVIDIA A100",
        pci="00000000:3B:00.0",
        mem_total=1000,
        mem_used=100,
        mem_reserved=7,
        util_gpu=87,
        util_mem=44,
        temp=61,
        temp_slowdown=90,
        power=512_345,
        power_limit=600_000,
        clock_sm=1410,
        clock_max_sm=1755,
        clock_mem=1593,
        reasons="0x4",
        fan=33,
        ecc_corr_vol=2,
        ecc_unc_vol=1,
        remap_corr=1,
        remap_unc=2,
        remap_pending=1,
        energy=42,
        cc_major=8,
        nvlinks=2,
        nvlink_down="1",
        nvlink_peer=1,
        procs=f"{os.getpid()}:50,9:60",
    )
    reader = start(gpus)
    driver = reader.wait_for(lambda line: isinstance(line, DriverRead))
    assert (driver.count, driver.driver.version, driver.driver.cuda) == (2, "580.95.05", "13.0")
    gpu = json.loads(msgspec.json.encode(reader.gpu(0)))
    assert gpu == {
        "index": 0,
        "uuid": FakeGpus.uuid(0),
        "name": "NVIDIA A100",
        "state": "ok",
        "bus_id": "00000000:3B:00.0",
        "memory_total_bytes": 1000,
        "memory_used_bytes": 210,
        "memory_reserved_bytes": 7,
        "utilisation": 87,
        "memory_utilisation": 44,
        "temperature": 61,
        "temperature_slowdown": 90,
        "power": 512.345,
        "power_limit": 600.0,
        "sm_clock": 1410,
        "sm_clock_max": 1755,
        "memory_clock": 1593,
        "fan": 33,
        "throttle_reasons": ["sw_power_cap"],
        "ecc_enabled": True,
        "ecc_corrected": 2,
        "ecc_uncorrected": 1,
        "remapped_rows": 3,
        "remap_pending": True,
        "remap_failed": False,
        "links": [
            {"link": 0, "up": True, "peer_uuid": FakeGpus.uuid(1)},
            {"link": 1, "up": False, "peer_uuid": FakeGpus.uuid(1)},
        ],
        "slices": [],
        "mig": False,
        "energy": 42,
        "compute_capability": "8.0",
        "xids": [],
        "processes": [
            {"pid": 9, "memory_bytes": 60, "name": "", "replica_id": None},
            {"pid": os.getpid(), "memory_bytes": 50, "name": "", "replica_id": None},
        ],
        "score": 100,
    }
    assert reader.end() == 0


def test_what_a_driver_does_not_tell_is_none_and_not_nought(gpus: FakeGpus, start: Start) -> None:
    gpus.set(
        0,
        **{
            f"fail.{function}": NOT_SUPPORTED
            for function in (
                "nvmlDeviceGetMemoryInfo",
                "nvmlDeviceGetMemoryInfo_v2",
                "nvmlDeviceGetPowerUsage",
                "nvmlDeviceGetUtilizationRates",
                "nvmlDeviceGetTemperature",
                "nvmlDeviceGetClockInfo",
                "nvmlDeviceGetEccMode",
                "nvmlDeviceGetTotalEccErrors",
                "nvmlDeviceGetRemappedRows",
                "nvmlDeviceGetMigMode",
                "nvmlDeviceGetTotalEnergyConsumption",
                "nvmlDeviceGetCudaComputeCapability",
                "nvmlDeviceGetComputeRunningProcesses_v3",
                "nvmlDeviceGetCurrentClocksEventReasons",
                "nvmlDeviceGetCurrentClocksThrottleReasons",
                "nvmlDeviceGetTemperatureThreshold",
                "nvmlDeviceGetNvLinkState",
            )
        },
    )
    gpu = start(gpus).gpu(0)
    told = {k: v for k, v in msgspec.structs.asdict(gpu).items() if v not in (None, ())}
    assert set(told) == {
        *("index", "uuid", "name", "bus_id", "state", "score"),
        *("power_limit", "sm_clock_max"),
    }


def test_slices_of_a_gpu_are_named_with_their_own_memory(gpus: FakeGpus, start: Start) -> None:
    gpus.set(
        0,
        mig_current=1,
        slices="1g.10gb:MIG-aaaa:10000:500,3g.40gb:MIG-bbbb:40000:0",
    )
    gpu = start(gpus).gpu(0)
    assert gpu.mig is True
    assert [(s.uuid, s.profile, s.memory_total_bytes, s.memory_used_bytes) for s in gpu.slices] == [
        ("MIG-aaaa", "1g.10gb", 10_000, 500),
        ("MIG-bbbb", "3g.40gb", 40_000, 0),
    ]


def test_a_lost_gpu_is_told_by_its_name_and_the_other_goes_on(gpus: FakeGpus, start: Start) -> None:
    reader = start(gpus)
    reader.gpu(1)
    gpus.set(1, fail=LOST)
    lost = reader.wait_for(lambda line: isinstance(line, GpuFailed))
    assert (lost.index, lost.uuid, lost.trouble) == (1, FakeGpus.uuid(1), "GPU_LOST")
    assert reader.gpu(0).temperature == 34
    gpus.heal(1)
    assert reader.gpu(1).temperature == 34


def test_xids_come_with_the_gpu_that_had_them_though_it_is_lost(
    gpus: FakeGpus, start: Start
) -> None:
    reader = start(gpus)
    reader.gpu(0)
    assert reader.xid(gpus, 0, 31).uuid == FakeGpus.uuid(0)
    assert reader.xid(gpus, 1, 43).uuid == FakeGpus.uuid(1)
    gpus.set(1, fail=LOST)
    gpus.xid(1, 79)
    seen = reader.wait_for(lambda line: isinstance(line, XidSeen) and line.xid == 79)
    assert seen.uuid == FakeGpus.uuid(1)


def test_a_gpu_that_hangs_does_not_hold_the_others(gpus: FakeGpus, start: Start) -> None:
    gpus.set(0, delay_ms=60_000)
    reader = start(gpus)
    for _ in range(2):
        assert reader.wait_for(lambda line: isinstance(line, GpuRead)).gpu.index == 1
    assert reader.end() == 0  # the hanging call is not waited for


@pytest.mark.parametrize(
    ("code", "trouble"),
    [(NOT_LOADED, "DRIVER_NOT_LOADED"), (MISMATCH, "DRIVER_MISMATCH"), (999, "NVML_ERROR")],
)
def test_a_driver_that_refuses_says_why_and_the_process_ends(
    gpus: FakeGpus, start: Start, code: int, trouble: str
) -> None:
    gpus.system["init_error"] = code
    gpus.write()
    reader = start(gpus)
    failed = reader.wait_for(lambda line: isinstance(line, DriverFailed))
    assert failed.trouble == trouble
    assert reader.process.wait(WAIT_S) == 0


def test_a_machine_without_the_library_says_so(gpus: FakeGpus, start: Start) -> None:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        pass
    else:
        pytest.skip("this machine has a driver of its own")
    gpus.library = gpus.path.parent  # nothing is there
    failed = start(gpus).wait_for(lambda line: isinstance(line, DriverFailed))
    assert failed.trouble == "NO_DRIVER"


def test_a_library_that_crashes_takes_only_the_reader_with_it(gpus: FakeGpus, start: Start) -> None:
    reader = start(gpus)
    reader.gpu(0)
    gpus.system["crash"] = 1
    gpus.write()
    assert reader.process.wait(WAIT_S) < 0


def test_a_gpu_that_comes_or_goes_makes_the_reader_begin_anew(gpus: FakeGpus, start: Start) -> None:
    reader = start(gpus)
    reader.gpu(1)
    del gpus.gpus[1]
    gpus.write()
    driver = reader.wait_for(lambda line: isinstance(line, DriverRead) and line.count == 1)
    assert driver.count == 1
    assert reader.process.wait(WAIT_S) == 0


def test_a_driver_that_lets_nobody_in_any_more_is_seen_by_who_is_inside(
    gpus: FakeGpus, start: Start
) -> None:
    reader = start(gpus)
    reader.gpu(0)
    gpus.system["init_error"] = MISMATCH
    gpus.write()
    failed = reader.wait_for(lambda line: isinstance(line, DriverFailed))
    assert failed.trouble == "DRIVER_MISMATCH"
    assert reader.process.wait(WAIT_S) == 0


def test_an_upgrade_of_the_library_makes_the_reader_begin_anew(
    gpus: FakeGpus, start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "lib"
    folder.mkdir()
    library = folder / "libnvidia-ml.so.1"
    shutil.copy(gpus.library / library.name, library)
    gpus.library = folder
    reader = start(gpus)
    reader.gpu(0)
    fresh = folder / "new"
    shutil.copy(library, fresh)
    fresh.replace(library)
    assert reader.process.wait(WAIT_S) == 0
