"""A real site on which the tasks of docs/CONSOLE_WALK.md are done, at a real console."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.fakes.nvml_library import FakeGpus
from tests.fakes.site import Site
from tests.fakes.terminal import Terminal, terminal
from tests.fakes.walk import Step, Task, filled, typed

SHELL_S: Final = 60.0


class Walked:
    """`names` are what the page's `$NAMES` are; `happens` what its ```meanwhile blocks do."""

    def __init__(self, site: Site, gpus: FakeGpus | None, folder: Path) -> None:
        self.site = site
        self.gpus = gpus
        self.folder = folder
        self.stick = folder / "stick"
        self.stick.mkdir(exist_ok=True)
        self.names = {"STICK": str(self.stick)}
        self.happens: dict[str, Callable[[], object]] = {}
        self._background: list[subprocess.Popen[bytes]] = []

    @property
    def environ(self) -> dict[str, str]:
        """Of somebody at a shell of the host: no settings of the appliance, a home of their own."""
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        return {**kept, "HOME": str(self.folder), "XDG_STATE_HOME": str(self.folder / "account")}

    def walk(self, task: Task, *, size: tuple[int, int] = (80, 24)) -> None:
        command = [*self.site.command, "console"]
        with terminal(command, size=size, folder=self.folder, environ=self.environ) as seen:
            seen.waits(lambda picture: "live " in picture, "a console")
            for block in task.blocks:
                for step in block.steps:
                    self._take(seen, step)
                self.names["COPIED"] = seen.screen.copied
                for line in block.lines:
                    if block.kind == "sh":
                        self._type(line)
                    else:
                        self.happens[line]()
            seen.type(b"q")
            assert seen.ended() == 0

    def _take(self, seen: Terminal, step: Step) -> None:
        for key in step.keys:
            seen.type(typed(key, self.names, seen.screen.copied))
        gone = step.seen.startswith("gone: ")
        text = filled(step.seen.removeprefix("gone: "), self.names)
        seen.waits(lambda picture: (text in picture) is not gone, f"{step}")

    def _type(self, line: str) -> None:
        """At a shell: `cic` is that of these tests; a line that ends in & goes on."""
        words = shlex.split(filled(line, self.names))
        goes_on = words[-1] == "&"
        assert words[0] == "cic", line
        command = [sys.executable, "-m", "appliance.cli", *words[1 : -1 if goes_on else None]]
        if goes_on:
            log = (self.folder / "background.log").open("ab")
            self._background.append(
                subprocess.Popen(command, env=self.environ, stdout=log, stderr=log)
            )
            log.close()
            return
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=SHELL_S, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"

    def close(self) -> None:
        for process in self._background:
            process.terminate()
        for process in self._background:
            process.wait(SHELL_S)
