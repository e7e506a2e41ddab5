"""What can be typed behind `:`, learnt in the background, and what was typed before."""

import asyncio
import sys
from typing import Final

import msgspec

from console.command_tree import Command

_TREE_TIMEOUT_S: Final = 30.0
_REMEMBERED: Final = 100


class Commands:
    """What is typed in one console: the tree of commands, once it is known, and earlier lines."""

    def __init__(self) -> None:
        self.tree: Command | None = None
        self.lines: list[str] = []

    def remember(self, line: str) -> None:
        if line in self.lines:
            self.lines.remove(line)
        self.lines.append(line)
        del self.lines[:-_REMEMBERED]

    async def learn(self) -> None:
        """Ask a child for the tree, at the first call. Without an answer there is no completion."""
        if self.tree is not None:
            return
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "console.command_tree"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), _TREE_TIMEOUT_S)
            self.tree = msgspec.json.decode(output, type=Command)
        except (TimeoutError, msgspec.DecodeError):
            return
        finally:
            if process.returncode is None:
                process.kill()
