"""The ten tasks of docs/CONSOLE_WALK.md, typed at a real console of a real site."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.fakes.nvml_library import LOST, FakeGpus, build_library
from tests.fakes.site import Site, running_site
from tests.fakes.walk import PAGE, Task, tasks, to_action
from tests.integration.console.walked_site import Busy, Walked

TASKS: Final = {task.number: task for task in tasks(PAGE.read_text())}
KEYS_MAX: Final = 3
WIDE: Final = (160, 48)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short one: the paths of sockets have to fit."""
    made = Path(tempfile.mkdtemp(prefix="cl-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[Busy]:
    """One site for all but the first task: each leaves what the others need."""
    gpus = FakeGpus(build_library(folder), folder)
    settings = {**gpus.environ, "CIC_SYNC_MODE": "offline", "CIC_SITE_NAME": "North"}
    with running_site(folder, settings=settings, with_agent=True) as site:
        busy = Busy(site, gpus, folder)
        try:
            yield busy
        finally:
            busy.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Walked]:
    """Just installed: `cic init` and the service run, and nothing else was done."""
    with running_site(with_agent=True) as site:
        walked = Walked(site, tmp_path)
        yield walked
        walked.close()


def test_the_page_has_the_ten() -> None:
    assert sorted(TASKS) == list(range(1, 11))


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: str(task.number))
def test_no_action_is_farther_than_three_keys_from_its_row(task: Task) -> None:
    steps = [step for block in task.blocks for step in block.steps]
    keys = to_action(steps)
    assert keys
    assert max(keys) <= KEYS_MAX


def test_first_install_to_first_token(fresh: Walked) -> None:
    fresh.walk(TASKS[1])
    (record,) = fresh.site.ledger()
    assert record["tenant"] == "acme"


def test_find_why_a_model_is_slow(shared: Busy) -> None:
    with shared.crowd(4):
        shared.walk(TASKS[2], size=WIDE)


def test_rotate_a_leaked_key(shared: Busy) -> None:
    assert shared.ask() == 200
    shared.walk(TASKS[3], ascii_only=True)
    assert shared.ask() == 401
    shared.key = shared.renewed()
    assert shared.ask() == 200


def test_add_a_node(shared: Busy) -> None:
    shared.walk(TASKS[4], ascii_only=True)


def test_reserve_capacity(shared: Busy) -> None:
    shared.walk(TASKS[5])
    (made,) = shared.site.cic("reservation", "list")
    assert (made["tenant"], made["model"], made["tokens_per_s"]) == ("acme", "tiny", 50)


def test_export_usage_to_a_stick_and_import_the_receipt(shared: Busy) -> None:
    shared.introduce()
    assert shared.ask() == 200
    shared.walk(TASKS[6])
    assert shared.site.cic("sync", "status")["lag_manifests"] == 0


def test_import_a_model_pack(shared: Busy) -> None:
    shared.publish("carried")
    shared.walk(TASKS[7])
    assert "carried" in [row["name"] for row in shared.site.cic("model", "list")]


def test_handle_a_gpu_that_fell_off(shared: Busy) -> None:
    shared.happens["It is powered off and on, and the GPU is there again."] = lambda: (
        shared.gpus.heal(1)
    )
    shared.gpus.set(1, fail=LOST)
    shared.walk(TASKS[8], ascii_only=True)


def test_explain_an_invoice_line(shared: Busy) -> None:
    assert shared.ask() == 200
    shared.site.cic("manifest", "seal")
    (shared.stick / "site.pem").write_text(shared.site.run("manifest", "public-key").stdout)
    shared.walk(TASKS[9], size=WIDE)


def test_restore_the_backup_of_last_night(shared: Busy) -> None:
    site = shared.site
    site.cic("backup", "create")
    site.cic("tenant", "delete", "acme", "--cascade", "--yes")
    assert shared.ask() == 401
    again = Site(shared.folder / "again", settings=site.settings, with_agent=True)
    shared.names["RESTORED"] = str(again.home)
    shared.walk(TASKS[10])
    site.stop()
    again.folder.mkdir(exist_ok=True)
    again.start()
    try:
        shared.site = again
        again.wait_ready("tiny")
        assert shared.ask() == 200
    finally:
        again.stop()
