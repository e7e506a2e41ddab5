"""docs/GPUS.md has every fault and every Xid, with the figures of the code."""

import re
from pathlib import Path

from agent.gpu.faults import CLEAR_S, FAULTS
from agent.gpu.health import FAILED_BELOW, OK_SCORE, RISE_S
from agent.gpu.history import RINGS
from agent.gpu.inventory import GREETING_S, HUNG_S
from agent.gpu.sampler import PATIENCE_S, PATIENCE_S_MAX
from agent.gpu.xids import XIDS
from agent.host_faults import HOST_FAULTS
from agent.host_watch import EVERY_S
from agent.host_watch import HUNG_S as HOST_HUNG_S

PAGE = (Path(__file__).parents[3] / "docs" / "GPUS.md").read_text()


def rows(begin: str, columns: int) -> dict[str, list[str]]:
    """Rows of the tables of so many columns whose first cell fits."""
    found = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and re.fullmatch(begin, cells[0]) and len(cells) == columns:
            found[cells[0].strip("`")] = [cell.removesuffix(" |") for cell in cells[1:]]
    return found


def test_every_fault_stands_there_as_it_is() -> None:
    assert rows(r"`[A-Z_]+`", 6) == {
        code: [kind.part, kind.severity, str(kind.score), kind.message, kind.next_step]
        for code, kind in {**FAULTS, **HOST_FAULTS}.items()
    }


def test_when_faults_of_the_host_begin_and_end_stands_there() -> None:
    assert list(rows(r"`[A-Z_]+`", 3)) == list(HOST_FAULTS)


def test_every_xid_stands_there_as_it_is() -> None:
    assert rows(r"\d+", 5) == {
        str(number): [
            *(kind.severity, str(kind.score)),
            "until the boot" if kind.held_s is None else f"{kind.held_s / 60:.0f} min",
            kind.meaning,
        ]
        for number, kind in XIDS.items()
    }


def test_the_times_are_those_of_the_code() -> None:
    assert f"nothing for {HUNG_S:.0f} s hangs" in PAGE
    assert f"nothing for {GREETING_S:.0f} s hangs as a whole" in PAGE
    assert f"read every {EVERY_S:.0f} s from" in PAGE
    assert f"not there after {HOST_HUNG_S:.0f} s is `DISK_HUNG`" in PAGE
    assert f"After {PATIENCE_S:.0f} s of that" in PAGE
    assert f"every {PATIENCE_S_MAX:.0f} s" in PAGE
    assert f"away for {CLEAR_S:.0f} s" in PAGE
    assert f"rise again after {RISE_S:.0f} s" in PAGE
    assert f"| {OK_SCORE}–100 | `ok`" in PAGE
    assert f"| 0–{FAILED_BELOW - 1} | `failed`" in PAGE
    assert [step_s * count for step_s, count in RINGS] == [3600, 86_400]
    for step_s, _count in RINGS:
        assert f"steps of {step_s} s" in PAGE
