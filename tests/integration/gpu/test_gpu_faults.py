"""Everything that happens to GPUs, from the driver's library to status, health and audit.

Whatever is done to a GPU must be seen within ten seconds, and its end as soon as it has been well
for ten seconds more.
"""

import time
from collections.abc import Callable
from typing import Any

from tests.fakes.nvml_library import LOST, MISMATCH, NOT_LOADED, THERMAL, FakeGpus
from tests.fakes.site import Site

SEEN_S = 10.0
CLEARED_S = 25.0  # ten of patience, and a hung driver is asked anew after ten


def node(site: Site) -> dict[str, Any]:
    (only,) = site.cic("node", "list")
    shown: dict[str, Any] = site.cic("node", "show", only["name"])
    return shown


def faults(site: Site) -> set[tuple[str, int | None]]:
    """Codes with the number of their GPU, as `cic node show` has them."""
    health = node(site)["health"] or {"faults": []}
    return {(fault["code"], number(fault["gpu_uuid"])) for fault in health["faults"]}


def number(uuid: str | None) -> int | None:
    return None if uuid is None else int(uuid.rpartition("-")[2])


def audited(site: Site, action: str) -> set[tuple[str, int | None]]:
    found = set()
    for entry in site.cic("audit", "list"):
        if entry["action"] == action:
            fault = entry["after"] or entry["before"]
            found.add((fault["code"], number(fault["gpu_uuid"])))
    return found


def parts(site: Site) -> dict[str, int]:
    return {part["name"]: part["score"] for part in node(site)["health"]["parts"]}


def until(site: Site, test: Callable[[], object], deadline_s: float, what: str) -> float:
    began = time.monotonic()
    site.until(test, deadline_s, what)
    return time.monotonic() - began


def test_every_fault_of_a_gpu_shows_and_goes(gpus: FakeGpus, site: Site) -> None:
    gpus.gpus.extend({} for _ in range(6))
    gpus.write()
    site.start()
    until(site, lambda: len(site.cic("gpu", "list")) == 8, SEEN_S, "eight GPUs")
    assert (node(site)["state"], node(site)["health"]["score"]) == ("ready", 100)
    assert faults(site) == set()
    gpus.set(0, fail=LOST)
    gpus.xid(1, 79)
    gpus.set(2, ecc_unc_vol=3)
    gpus.set(3, reasons=THERMAL, temp=91)
    gpus.set(4, nvlink_down="3,7")
    gpus.set(5, delay_ms=60_000)
    gpus.set(6, remap_pending=1)
    expected = {
        *(("GPU_LOST", 0), ("XID_79", 1), ("ECC_UNCORRECTED", 2), ("THERMAL_SLOWDOWN", 3)),
        *(("NVLINK_DOWN", 4), ("NVML_HUNG", 5), ("REMAP_PENDING", 6)),
    }
    until(site, lambda: faults(site) == expected, SEEN_S, "all faults to show")
    until(site, lambda: audited(site, "fault") == expected, 1.0, "all faults in the audit")
    assert parts(site) == {
        "engine": 100,
        "temperature": 40,
        "memory": 40,
        "processor": 100,
        "network": 60,
        "faults": 20,
    }
    shown = node(site)
    assert (shown["state"], shown["health"]["state"]) == ("ready", "degraded")
    assert "cic node drain" in shown["reason"]
    rows = {row["index"]: row for row in site.cic("gpu", "list")}
    assert {i: (r["state"], r["score"]) for i, r in rows.items()} == {
        0: ("gone", 0),
        1: ("failed", 0),
        2: ("degraded", 40),
        3: ("degraded", 40),
        4: ("degraded", 60),
        5: ("failed", 10),
        6: ("degraded", 60),
        7: ("ok", 100),
    }
    assert rows[1]["xids"] == [79]
    assert rows[5]["temperature"] is None  # what it told before it hung is not the truth any more
    for index in range(8):
        gpus.heal(index)
    until(site, lambda: faults(site) == {("XID_79", 1)}, CLEARED_S, "what was healed to be cleared")
    until(
        *(site, lambda: audited(site, "fault cleared") == expected - {("XID_79", 1)}, 3.0),
        "the end of all in the audit",
    )
    assert {n: s for n, s in parts(site).items() if s < 100} == {"faults": 20}
    (name,) = (row["name"] for row in site.cic("node", "list"))
    (series,) = site.cic("gpu", "history", name, "--gpu", FakeGpus.uuid(3))["gpus"]
    points = series["rings"][0]["points"]
    assert {point[-1] for point in points} >= {40}  # the lowest score of a span that was hot
    assert max(point[3] for point in points) == 91
    # An Xid 79 holds until the machine is booted; a restart of everything is no boot.
    site.restart()
    until(site, lambda: faults(site) == {("XID_79", 1)}, SEEN_S, "the Xid to be remembered")
    assert len([e for e in site.cic("audit", "list") if e["action"].startswith("fault")]) == 13


def test_a_gpu_that_vanishes_from_the_list_is_missing(gpus: FakeGpus, site: Site) -> None:
    site.start()
    until(site, lambda: len(site.cic("gpu", "list")) == 2, SEEN_S, "two GPUs")
    gone = gpus.gpus.pop(1)
    gpus.write()
    until(site, lambda: faults(site) == {("GPU_MISSING", 1)}, SEEN_S, "the GPU to be missed")
    assert [row["state"] for row in site.cic("gpu", "list")] == ["ok", "gone"]
    gpus.gpus.append(gone)
    gpus.write()
    until(site, lambda: not faults(site), CLEARED_S, "it to be back")


def test_a_driver_that_does_not_fit_fails_the_node_until_it_does(
    gpus: FakeGpus, site: Site
) -> None:
    gpus.system["init_error"] = MISMATCH
    gpus.write()
    site.start()
    until(site, lambda: site.cic("node", "list"), SEEN_S, "the node")
    until(site, lambda: node(site)["state"] == "failed", SEEN_S, "the node to be failed")
    shown = node(site)
    assert (shown["health"]["score"], faults(site)) == (0, {("DRIVER_MISMATCH", None)})
    assert "two versions" in shown["driver"]["problem"]
    assert "reboot" in shown["reason"]
    assert audited(site, "fault") == {("DRIVER_MISMATCH", None)}
    del gpus.system["init_error"]
    gpus.write()
    until(site, lambda: node(site)["state"] == "ready", CLEARED_S, "the node to be ready")
    assert node(site)["driver"]["problem"] == ""
    assert len(site.cic("gpu", "list")) == 2


def test_a_driver_that_goes_away_takes_the_gpus_that_were_there(gpus: FakeGpus, site: Site) -> None:
    site.start()
    until(site, lambda: len(site.cic("gpu", "list")) == 2, SEEN_S, "two GPUs")
    site.stop()
    gpus.system["init_error"] = NOT_LOADED
    gpus.write()
    site.start()
    until(site, lambda: faults(site) == {("DRIVER_NOT_LOADED", None)}, SEEN_S, "the fault")
    assert node(site)["state"] == "failed"
    assert [row["state"] for row in site.cic("gpu", "list")] == ["failed", "failed"]


def test_a_driver_that_hangs_from_the_start_holds_nothing_up(gpus: FakeGpus, site: Site) -> None:
    gpus.system["init_delay_ms"] = 60_000
    gpus.write()
    site.start()
    until(site, lambda: site.cic("node", "list"), SEEN_S, "the node")
    until(site, lambda: faults(site) == {("NVML_HUNG", None)}, SEEN_S, "the fault")
    del gpus.system["init_delay_ms"]
    gpus.write()
    until(site, lambda: not faults(site), CLEARED_S, "the driver to be asked anew")
    assert len(site.cic("gpu", "list")) == 2


def test_a_node_without_gpus_or_driver_is_in_good_health(gpus: FakeGpus, site: Site) -> None:
    site.settings = {}
    site.start()
    until(site, lambda: site.cic("node", "list"), SEEN_S, "the node")
    until(site, lambda: node(site)["health"], SEEN_S, "its health")
    shown = node(site)
    assert (shown["state"], shown["health"]["score"], shown["gpus"]) == ("ready", 100, [])
    assert site.cic("gpu", "list") == []
