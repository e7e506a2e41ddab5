"""Real SkyPilot with its own API server on the loopback, and clouds that are only a catalogue."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.fleet.burst.sky import SkyPilot

SKYPILOT_VARIABLE = "CROSSLOGIC_SKYPILOT"  # the interpreter that has it
START_S = 120.0

# Two clouds as SkyPilot's catalogue has them: prices of the test's own making.
_GPU = (
    "{{'Gpus': [{{'Name': '{0}', 'Count': {1}.0, 'MemoryInfo': {{'SizeInMiB': {2}}}}}],"
    " 'TotalGpuMemoryInMiB': {3}}}"
)
_L4 = _GPU.format("L4", 1, 24_576, 24_576)
_H100 = _GPU.format("H100", 8, 81_920, 655_360)
RUNPOD = f"""\
InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Region,SpotPrice,Price,AvailabilityZone
1x_L4_SECURE,L4,1.0,12.0,50.0,"{_L4}",US,0.21,0.39,US-KS-2
1x_L4_SECURE,L4,1.0,12.0,50.0,"{_L4}",RO,0.19,0.43,EU-RO-1
8x_H100_SECURE,H100,8.0,160.0,1000.0,"{_H100}",US,14.0,19.12,US-KS-2
"""
LAMBDA = f"""\
AcceleratorName,InstanceType,vCPUs,MemoryGiB,Price,Region,GpuInfo,SpotPrice,AcceleratorCount
H100,gpu_8x_h100_sxm5,208.0,1800.0,23.92,us-test-1,"{_H100}",,8.0
"""
ACCELERATORS = "AcceleratorName,Clouds\nL4,RunPod\nH100,Lambda\n"
METADATA = "GPU,MemoryGB,Lambda,RunPod\nL4,24GB,0,1\nH100,80GB,1,1\n"
# The server looks for accounts when it starts, finds none, and says so: after that.
_ENABLE = """
import time
import sky
ON_BOOT = ["skypilot-server-on-boot-check"]
ENDED = {"SUCCEEDED", "FAILED", "CANCELLED"}
while not any(r.status in ENDED for r in sky.api_status(ON_BOOT)):
    time.sleep(0.5)
from sky import global_user_state
from sky.clouds import CloudCapability
global_user_state.set_enabled_clouds(["Lambda", "RunPod"], CloudCapability.COMPUTE, "default")
"""


@dataclass(frozen=True)
class Sky:
    """SkyPilot in a home of its own."""

    python: str
    environ: dict[str, str]

    def clouds(self) -> SkyPilot:
        return SkyPilot(self.python, self.environ)

    def program(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.python, *arguments],
            env=self.environ,
            check=True,
            capture_output=True,
            text=True,
            timeout=START_S,
        )
        return done.stdout


@pytest.fixture(scope="session")
def sky() -> Iterator[Sky]:
    python = os.environ.get(SKYPILOT_VARIABLE)
    if python is None:
        pytest.skip(f"SkyPilot is not named by {SKYPILOT_VARIABLE}; `make test-burst` installs it")
    # Not one of pytest's folders: another run of it would take it away from the server.
    with tempfile.TemporaryDirectory() as folder:
        yield from _running(python, Path(folder))


def _running(python: str, home: Path) -> Iterator[Sky]:
    for cloud, catalogue in (("runpod", RUNPOD), ("lambda", LAMBDA)):
        folder = home / ".sky" / "catalogs" / "v8" / cloud
        folder.mkdir(parents=True)
        (folder / "vms.csv").write_text(catalogue)
    common = home / ".sky" / "catalogs" / "v8" / "common"
    common.mkdir()
    (common / "accelerators.csv").write_text(ACCELERATORS)
    (common / "metadata.csv").write_text(METADATA)
    programs = home / "programs"
    programs.mkdir()
    if shutil.which("rsync") is None:
        # SkyPilot asks it for its version before it plans; a dry run uses it for nothing else.
        (programs / "rsync").write_text("#!/bin/sh\necho rsync\n")
        (programs / "rsync").chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {
        "HOME": str(home),
        "PATH": f"{programs}:{Path(python).parent}:{os.environ['PATH']}",
        "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
        "SKYPILOT_API_SERVER_LOCAL_PORT": str(port),
    }
    ready = Sky(python, environ)
    ready.program("-c", "import sky; sky.api_start()")
    try:
        ready.program("-c", _ENABLE)
        yield ready
    finally:
        ready.program("-c", "import sky; sky.api_stop()")
