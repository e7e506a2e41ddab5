"""The ten tasks of docs/CONSOLE_WALK.md, typed at a real console of a real site."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.fakes.site import Site
from tests.fakes.tiny_gguf import write_tiny_gguf
from tests.fakes.walk import PAGE, Task, tasks, to_action
from tests.integration.console.walked_site import Walked

TASKS: Final = {task.number: task for task in tasks(PAGE.read_text())}
KEYS_MAX: Final = 3


@pytest.fixture
def fresh() -> Iterator[Walked]:
    """Just installed: `cic init` and the service run, and nothing else was done."""
    folder = Path(tempfile.mkdtemp(prefix="cl-"))
    site = Site(folder, with_agent=True)
    walked = Walked(site, None, folder)
    write_tiny_gguf(walked.stick / "tiny.gguf")
    try:
        site.init()
        site.start()
        yield walked
        site.stop()
    finally:
        walked.close()
        site.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: str(task.number))
def test_no_action_is_farther_than_three_keys_from_its_row(task: Task) -> None:
    steps = [step for block in task.blocks for step in block.steps]
    assert all(keys <= KEYS_MAX for keys in to_action(steps))


def test_first_install_to_first_token(fresh: Walked) -> None:
    fresh.walk(TASKS[1])
