"""Several instances on one database take the same manifests in at once: one result."""

import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appliance.controlplane.ingest import BatchSize, Taken
from appliance.controlplane.service import ControlPlane
from appliance.controlplane.settings import ControlHome
from appliance.manifests.bundle import CarriedManifest
from tests.fakes.books import books
from tests.fakes.reporting import bundle, clone, enrolled, known, offer, sealed
from tests.fakes.sites import Site

CIC = [sys.executable, "-c", "import sys; from appliance.cli import main; sys.exit(main())"]


def pieces(chance: random.Random, manifests: list[CarriedManifest]) -> list[list[CarriedManifest]]:
    """Parts that overlap, repeat, leave gaps to others, in any order; together they are all."""
    cut = [
        manifests[start : start + chance.randrange(1, 8)] for start in range(0, len(manifests), 3)
    ]
    cut += [manifests[chance.randrange(len(manifests)) :][:5] for _ in range(4)]
    chance.shuffle(cut)
    return cut


@pytest.mark.parametrize("seed", range(4))
def test_overlapping_pieces_at_several_instances_are_counted_once(
    another: Callable[[], ControlPlane], seed: int
) -> None:
    chance = random.Random(seed)
    planes = [another() for _ in range(3)]
    for plane in planes:
        plane.ingest.size = BatchSize(manifests=chance.randrange(1, 6))
    site = enrolled(planes[0])
    manifests = sealed(site, 18, records=2)
    plans = [(plane, pieces(chance, manifests)) for plane in planes]

    def report(plan: tuple[ControlPlane, list[list[CarriedManifest]]]) -> list[Taken]:
        plane, parts = plan
        return [taken for part in parts for taken in offer(plane, site, part)]

    with ThreadPoolExecutor(3) as threads:
        answers = [one for answer in threads.map(report, plans) for one in answer]
    held = books(planes[0], site.appliance_id)
    assert held.agree, held
    assert (held.accepted_through, held.waiting, held.requests_posted) == (18, 0, 36)
    fresh = {"ACCEPTED", "TENANT_UNMAPPED"}
    accepted = [
        (one.epoch, one.seq) for a in answers for one in a.dispositions if one.code in fresh
    ]
    assert sorted(accepted) == [(1, seq) for seq in range(1, 19)]  # each by exactly one of them


@pytest.mark.parametrize("seed", range(2))
def test_two_copies_of_a_site_at_two_instances_at_once_end_frozen(
    another: Callable[[], ControlPlane], seed: int
) -> None:
    planes = [another(), another()]
    site = enrolled(planes[0])
    offer(planes[0], site, sealed(site, 2))
    copy = clone(site)
    both: list[tuple[ControlPlane, Site, list[CarriedManifest]]] = [
        (planes[0], site, sealed(site, 3, records=1 + seed)),
        (planes[1], copy, sealed(copy, 3, records=4)),
    ]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda one: offer(*one), both))
    assert known(planes[0], site).frozen
    held = books(planes[0], site.appliance_id)
    assert held.agree, held


def test_two_processes_import_the_same_file_at_once(
    another: Callable[[], ControlPlane], home: ControlHome, tmp_path: Path
) -> None:
    plane = another()
    site = enrolled(plane)
    file = tmp_path / "site.usage"
    file.write_bytes(bundle(site, sealed(site, 150, records=1)))
    command = [*CIC, "control-plane", "--home", str(home.root), "import", str(file)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    for process in running:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, (out, err)
    held = books(plane, site.appliance_id)
    assert held.agree, held
    assert held.requests_posted == 150


def test_many_sites_at_several_instances_do_not_wait_for_each_other_for_ever(
    another: Callable[[], ControlPlane],
) -> None:
    """What serialisable transactions turn back is done again, until all of it is done."""
    planes = [another(), another()]
    reporting = [enrolled(planes[0], number, f"site-{number}") for number in range(1, 7)]
    work = [(planes[n % 2], site, sealed(site, 6, records=1)) for n, site in enumerate(reporting)]

    def report(one: tuple[ControlPlane, Site, list[CarriedManifest]]) -> None:
        plane, site, manifests = one
        for manifest in manifests:
            assert all(taken.well for taken in offer(plane, site, [manifest]))

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(report, work))
    for site in reporting:
        held = books(planes[0], site.appliance_id)
        assert held.agree, held
        assert held.accepted_through == 6
