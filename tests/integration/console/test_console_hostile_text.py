"""Names and reasons that hold escape sequences: the terminal is told none of them."""

import asyncio
import time
from pathlib import Path
from typing import Any, Final

import pytest

from appliance.wire.command import ExitCode
from tests.fakes.simulated_site import SimulatedSite, simulated_site
from tests.integration.console.test_console_on_a_pty import OnTerminal, on_terminal

_DEADLINE_S: Final = 20.0
_QUIET_S: Final = 0.25
_MODES: Final = 8
TITLE: Final = "\x1b]0;owned\x07"  # names the terminal's window
CLEAR: Final = "\x1b[2J\x9b2J"
HOSTILE: Final = f"{TITLE}{CLEAR}\u202e"
# Words of the wire, by which the console chooses; and times.
_WORDS: Final = ("state", "severity", "layer", "limit", "phase", "stage", "mode", "operation", "id")


def poisoned(row: dict[str, Any]) -> dict[str, Any]:
    """Each text of a row that people or machines may choose, with escapes in it."""
    return {
        name: f"{value[:3]}{HOSTILE}{value[3:]}"
        if isinstance(value, str)
        and name not in _WORDS
        and not name.endswith(("_at", "_id", "since"))
        else value
        for name, value in row.items()
    }


def poison(site: SimulatedSite) -> None:
    for table in site.fleet.tables().values():
        for row_id, row in table.items():
            table[row_id] = poisoned(row)
    site.tell()


async def settled(terminal: OnTerminal) -> None:
    """Until nothing more came for a while."""
    quiet_s, end_s = time.monotonic(), time.monotonic() + _DEADLINE_S
    while time.monotonic() - quiet_s < _QUIET_S:
        assert time.monotonic() < end_s, "it paints and paints"
        size = len(terminal.seen)
        terminal.take()
        if len(terminal.seen) != size:
            quiet_s = time.monotonic()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("options", [(), ("--ascii",)])
async def test_no_escape_of_a_row_reaches_the_terminal(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    async with simulated_site(tmp_path / "home", every_s=3_600, condition="failed") as site:
        site.frozen = True
        poison(site)
        with on_terminal(site.home.config, *options, size=(160, 48)) as terminal:
            await terminal.reads(b"owned")  # as text it may be there
            for digit in b"2345678":
                terminal.type(bytes([digit]))
                await settled(terminal)
                terminal.type(b"\r")  # what is in it
                await settled(terminal)
                terminal.type(b"\x1b")
                await settled(terminal)
            terminal.type(b"!")
            await settled(terminal)
            terminal.type(b"1q")
            assert await terminal.ended() == ExitCode.OK
    assert terminal.seen.count(b"owned") > _MODES  # each of them was looked at
    # A bell alone is none of these: Textual ends a sequence of its own with it.
    for sent in ("\x1b]0;", "owned\x07", "\x1b[2J", "\x9b", "\u202e"):
        assert sent.encode() not in terminal.seen, repr(sent)
