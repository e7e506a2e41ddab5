"""A control plane that is killed in the midst of its work: nothing is half done, nothing twice."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from appliance.controlplane.service import ControlPlane
from appliance.controlplane.settings import ControlHome
from tests.fakes.books import books
from tests.fakes.reporting import bundle, enrolled, sealed

# Small transactions, so that there are many moments between and inside them.
PROGRAM = """
import sys
from pathlib import Path
from appliance.controlplane.carriage import take_bundle
from appliance.controlplane.ingest import BatchSize
from appliance.controlplane.service import open_control_plane
from appliance.controlplane.settings import ControlHome
plane = open_control_plane(ControlHome(Path(sys.argv[1])))
plane.ingest.size = BatchSize(manifests=7)
print("ready", flush=True)
with open(sys.argv[2], "rb") as file:
    delivery = take_bundle(plane.ingest, file, "file")
plane.close()
sys.exit(0 if delivery.well else 1)
"""
MANIFESTS = 250


def test_killed_at_any_moment_the_books_agree_and_the_rest_follows(
    another: Callable[[], ControlPlane], home: ControlHome, tmp_path: Path
) -> None:
    plane = another()
    site = enrolled(plane)
    file = tmp_path / "site.usage"
    file.write_bytes(bundle(site, sealed(site, MANIFESTS, records=1)))
    chance = random.Random(5)
    reached = [0]
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(home.root), str(file)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.01, 0.25))  # the moment is the point: any will do
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        held = books(plane, site.appliance_id)
        if held.accepted_through:
            assert held.agree, held
        assert held.accepted_through >= reached[-1]
        reached.append(held.accepted_through)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(home.root), str(file)], timeout=100, check=False
    )
    assert done.returncode == 0
    held = books(plane, site.appliance_id)
    assert held.agree, held
    assert (held.accepted_through, held.requests_posted) == (MANIFESTS, MANIFESTS)
