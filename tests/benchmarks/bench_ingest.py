"""What the control plane takes in: verified, posted, held, stored and receipted.

    python -m tests.benchmarks.bench_ingest [--headers 6000] [--manifests 400] [--lines 200]
        [--processes 2] [--url postgresql://…/EMPTY]

Two shapes: many manifests of one line (headers a second), and few of many lines (lines a second).
Every result goes through `Ingest.take` to the commit, as from a file or the wire. The CPU time of
this process is shown beside the time that passed: on a busy machine it is the truer figure.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from appliance.controlplane.identity import create
from appliance.controlplane.service import ControlPlane, open_control_plane
from appliance.controlplane.settings import (
    ControlHome,
    ControlPlaneSettings,
    DatabaseSettings,
    Ingest,
)
from appliance.manifests.bundle import CarriedManifest
from tests.fakes.clock import ManualClock
from tests.fakes.reporting import enrolled, sealed
from tests.fakes.sites import MINUTE_NS, START_NS, Site, make_record

YEAR_S = 365 * 86_400


def many_lines(site: Site, count: int, lines: int) -> list[CarriedManifest]:
    """Manifests of so many lines: one record for each key, twenty tenants, five models."""
    made = []
    for _ in range(count):
        first = site.state.event_seq_hi + 1
        records = [
            make_record(
                first + key,
                site.at_ns - MINUTE_NS,
                tenant_id=f"ten_{key % 20:024d}",
                key_id=f"key_{key:024d}",
                model=f"model-{key % 5}",
            )
            for key in range(lines)
        ]
        envelope, ndjson, one = site.seal(records)
        made.append(CarriedManifest(one.header.epoch, one.header.seq, envelope, ndjson))
    return made


def measure(plane: ControlPlane, site: Site, manifests: list[CarriedManifest], what: str) -> None:
    lines = sum(one.lines.count(b"\n") for one in manifests)
    for name in ("new", "again"):
        begun, cpu = time.perf_counter(), time.process_time()
        for taken in plane.ingest.take(site.appliance_id, manifests, "file"):
            assert taken.well, taken.dispositions
        passed, used = time.perf_counter() - begun, time.process_time() - cpu
        print(
            f"{what}, {name}: {len(manifests) / passed:,.0f} manifests/s,"
            f" {lines / passed:,.0f} lines/s; per second of this process:"
            f" {len(manifests) / used:,.0f} manifests, {lines / used:,.0f} lines"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--headers", type=int, default=6_000)
    parser.add_argument("--manifests", type=int, default=400)
    parser.add_argument("--lines", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--url", default="")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = ControlHome(Path(folder))
        home.config_file.write_text("")
        create(home)
        plane = open_control_plane(
            home,
            clock=ManualClock(START_NS + YEAR_S * 1_000_000_000),
            settings=ControlPlaneSettings(
                database=DatabaseSettings(url=told.url), ingest=Ingest(processes=told.processes)
            ),
        )
        try:
            first, second = enrolled(plane), enrolled(plane, 2, "paris")
            plane.ingest.examination.load()
            measure(plane, first, sealed(first, told.headers, 1), "one line each")
            large = many_lines(second, told.manifests, told.lines)
            measure(plane, second, large, f"{told.lines} lines each")
        finally:
            plane.close()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(f"largest memory of this process: {usage.ru_maxrss / 1024:,.0f} MiB, with the manifests")


if __name__ == "__main__":
    main()
