"""nvitop and gpustat read the same library as the agent: every figure they show is ours, too."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.nvml_library import FakeGpus
from tests.fakes.site import Site

MIB = 1024 * 1024

NVITOP = """
import json, nvitop

def told(value):
    return None if value in (nvitop.NA, 'N/A') else value

rows = []
for d in nvitop.Device.all():
    now, most = d.clock_infos(), d.max_clock_infos()
    figures = {
        'index': d.index, 'name': d.name(), 'uuid': d.uuid(), 'bus_id': d.bus_id(),
        'memory_total_bytes': d.memory_total(), 'memory_used_bytes': d.memory_used(),
        'memory_reserved_bytes': d.memory_info().reserved, 'utilisation': d.gpu_utilization(),
        'memory_utilisation': d.memory_utilization(), 'temperature': d.temperature(),
        'power': d.power_usage(), 'power_limit': d.power_limit(), 'sm_clock': now.sm,
        'sm_clock_max': most.sm, 'memory_clock': now.memory, 'fan': d.fan_speed(),
        'ecc_uncorrected': d.total_volatile_uncorrected_ecc_errors(),
        'mig': d.is_mig_mode_enabled(),
    }
    rows.append({
        **{name: told(value) for name, value in figures.items()},
        'compute_capability': d.cuda_compute_capability(),
        'processes': sorted([p.pid, p.gpu_memory()] for p in d.processes().values()),
        'slices': [[m.uuid(), m.memory_total(), m.memory_used()] for m in d.mig_devices()],
    })
versions = {'driver': nvitop.Device.driver_version(), 'cuda': nvitop.Device.cuda_driver_version()}
print(json.dumps({**versions, 'gpus': rows}))
"""

GPUSTAT = """
import json, gpustat
query = gpustat.GPUStatCollection.new_query()
rows = [dict(gpu.entry) for gpu in query]
print(json.dumps({'driver': query.driver_version, 'gpus': rows}, default=str))
"""


def ask(program: str, gpus: FakeGpus) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **gpus.environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def busy(gpus: FakeGpus, site: Site, tmp_path: Path) -> list[dict[str, Any]]:
    """Two GPUs with figures of their own, the second with slices, as `cic gpu list` has them."""
    gpus.set(
        0,
        name="NVIDIA A100-SXM4-80GB",
        util_gpu=87,
        util_mem=44,
        temp=61,
        power=312_000,
        power_limit=400_000,
        clock_sm=1410,
        clock_max_sm=1755,
        clock_mem=1593,
        fan=33,
        ecc_unc_vol=2,
        cc_major=8,
        mem_used=5 * MIB,
        procs=f"{os.getpid()}:{8 * 1024 * MIB}",
    )
    gpus.set(
        1,
        mig_current=1,
        slices=f"1g.10gb:MIG-5e1f0000-0000-4000-8000-000000000001:{9984 * MIB}:{12 * MIB}",
        fail__nvmlDeviceGetPowerUsage=3,
    )
    site.start()
    site.until(lambda: len(site.cic("gpu", "list")) == 2, 10.0, "two GPUs")
    rows: list[dict[str, Any]] = site.cic("gpu", "list")
    return rows


def test_nvitop_shows_what_we_show(gpus: FakeGpus, site: Site, busy: list[dict[str, Any]]) -> None:
    seen = ask(NVITOP, gpus)
    (shown,) = site.cic("node", "list")
    assert (shown["driver"]["version"], shown["driver"]["cuda"]) == (seen["driver"], seen["cuda"])
    for ours, theirs in zip(busy, seen["gpus"], strict=True):
        compared = dict(theirs)
        processes, slices = compared.pop("processes"), compared.pop("slices")
        capability = compared.pop("compute_capability")
        for milliwatts in ("power", "power_limit"):
            if compared[milliwatts] is not None:
                compared[milliwatts] /= 1000
        assert {name: ours[name] for name in compared} == compared
        assert ours["compute_capability"] == ".".join(map(str, capability))
        assert sorted([p["pid"], p["memory_bytes"]] for p in ours["processes"]) == processes
        told = [
            [s["uuid"], s["memory_total_bytes"], s["memory_used_bytes"]] for s in ours["slices"]
        ]
        assert told == slices


def test_gpustat_shows_what_we_show(gpus: FakeGpus, site: Site, busy: list[dict[str, Any]]) -> None:
    seen = ask(GPUSTAT, gpus)
    (shown,) = site.cic("node", "list")
    assert shown["driver"]["version"] == seen["driver"]
    for ours, theirs in zip(busy, seen["gpus"], strict=True):
        assert (ours["index"], ours["uuid"], ours["name"]) == (
            *(theirs["index"], theirs["uuid"], theirs["name"]),
        )
        assert ours["temperature"] == theirs["temperature.gpu"]
        assert ours["fan"] == theirs["fan.speed"]
        assert ours["utilisation"] == theirs["utilization.gpu"]
        assert ours["memory_used_bytes"] // MIB == theirs["memory.used"]
        assert ours["memory_total_bytes"] // MIB == theirs["memory.total"]
        for name, watts in (("power", "power.draw"), ("power_limit", "enforced.power.limit")):
            assert (None if ours[name] is None else int(ours[name])) == theirs[watts]
        processes = [(p["pid"], p["gpu_memory_usage"]) for p in theirs["processes"] or []]
        assert [(p["pid"], p["memory_bytes"] // MIB) for p in ours["processes"]] == processes
