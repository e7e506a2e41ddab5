"""The installer is killed before any of its changes: it goes on, or it is undone to the last trace.

A few points in the ordinary run; INSTALLER_KILLS=all tries every one.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.stand_in_bundle import snapshot
from tests.integration.installer.conftest import Installation

EVERY = os.environ.get("INSTALLER_KILLS") == "all"
FILES_OF_ITS_OWN = ("history.jsonl", "journal.jsonl", "lock", "install-manifest.json")


def _points(installation: Installation, count: Path, *words: str, few: int) -> list[int]:
    """Numbers of changes to be killed at. Runs the whole once, to count them."""
    done = installation.killed_at(0, count, *words)
    assert done.code == 0, done.err
    total = int(count.read_text())
    assert total > few
    if EVERY:
        return list(range(1, total + 1))
    return sorted({1 + round(n * (total - 1) / (few - 1)) for n in range(few)})


def _compared(root: Path) -> dict[str, str]:
    """Without what differs from run to run: databases, secrets, times."""
    found = snapshot(root)
    return {
        name: kind if kind.startswith(("folder", "link")) or "opt/" in name else "file"
        for name, kind in found.items()
    }


@pytest.mark.timeout(1800 if EVERY else 60)
def test_an_installation_that_is_killed_goes_on_or_is_undone(
    installation: Installation, answers: Callable[[str], str], tmp_path: Path
) -> None:
    fresh = snapshot(installation.root)
    words = ("install", "--answers", answers("start = false"))
    points = _points(installation, tmp_path / "count", *words, few=4)
    whole = _compared(installation.root)
    assert installation.run("uninstall", "--purge").code == 0
    assert snapshot(installation.root) == fresh
    for point in points:
        killed = installation.killed_at(point, tmp_path / "count", *words)
        assert killed.code == -signal.SIGKILL, (point, killed)
        again = installation.run(*words)
        assert again.code == 0, (point, again.err)
        assert _compared(installation.root) == whole, point
        assert installation.run("uninstall", "--purge").code == 0
        assert snapshot(installation.root) == fresh, point

        assert installation.killed_at(point, tmp_path / "count", *words).code < 0
        undone = installation.run("install", "--undo")
        assert undone.code == 0, (point, undone.err)
        assert snapshot(installation.root) == fresh, point


@pytest.mark.timeout(1800 if EVERY else 60)
def test_an_uninstallation_that_is_killed_goes_on(
    installation: Installation, answers: Callable[[str], str], tmp_path: Path
) -> None:
    fresh = snapshot(installation.root)
    install = ("--answers", answers("start = false"))
    assert installation.run(*install).code == 0
    points = _points(installation, tmp_path / "count", "uninstall", "--purge", few=4)
    assert snapshot(installation.root) == fresh
    for point in points:
        assert installation.run(*install).code == 0
        killed = installation.killed_at(point, tmp_path / "count", "uninstall", "--purge")
        assert killed.code == -signal.SIGKILL, (point, killed)
        again = installation.run("uninstall", "--purge")
        assert again.code == 0, (point, again.err)
        assert snapshot(installation.root) == fresh, point
