"""A real site on which the tasks of docs/CONSOLE_WALK.md are done, at a real console."""

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from console.ascii import to_ascii
from tests.fakes.nvml_library import FakeGpus
from tests.fakes.site import Key, Site
from tests.fakes.terminal import Terminal, terminal
from tests.fakes.tiny_gguf import write_tiny_gguf
from tests.fakes.walk import Step, Task, filled, typed

SHELL_S: Final = 60.0


def squeezed(picture: str) -> str:
    """Without the spaces that only fill a column."""
    return re.sub(" +", " ", picture)


def matching(word: str) -> list[str]:
    """As a shell has it: the files that a word with a * stands for."""
    if "*" not in word:
        return [word]
    return [str(found) for found in Path(word).parent.glob(Path(word).name)]


class Walked:
    """`names` are what the page's `$NAMES` are; `happens` what its ```meanwhile blocks do."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.folder = folder
        self.stick = folder / "stick"
        self.stick.mkdir()
        self.model = write_tiny_gguf(self.stick / "tiny.gguf")
        self.names = {"STICK": str(self.stick)}
        self.happens: dict[str, Callable[[], object]] = {}
        self._background: list[subprocess.Popen[bytes]] = []

    @property
    def environ(self) -> dict[str, str]:
        """Of somebody at a shell of the host: no settings of the appliance, a home of their own."""
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        return {**kept, "HOME": str(self.folder), "XDG_STATE_HOME": str(self.folder / "account")}

    def walk(
        self, task: Task, *, size: tuple[int, int] = (80, 24), ascii_only: bool = False
    ) -> None:
        """On a terminal of that size, and of that poverty."""
        shown = to_ascii if ascii_only else str
        command = [*self.site.command, "console", *(["--ascii"] if ascii_only else [])]
        with terminal(command, size=size, folder=self.folder, environ=self.environ) as seen:
            seen.waits(lambda picture: "live " in picture, "a console")
            for block in task.blocks:
                for step in block.steps:
                    self._take(seen, step, shown)
                self.names["COPIED"] = seen.screen.copied
                home: list[str] = []
                for line in block.lines:
                    if line.startswith("# "):
                        home = ["--home", str(self.home_of(line[2:]))]
                    elif block.kind == "sh":
                        self._type(line, home)
                    else:
                        self.happens[line]()
                for receipt in self.stick.glob("*.receipt"):
                    self.names["RECEIPT"] = receipt.name
            seen.type(b"q")
            assert seen.ended() == 0
            assert seen.ascii_only or not ascii_only

    def home_of(self, machine: str) -> Path:
        """Where `cic` keeps what is its own on another machine than the site's."""
        return self.folder / machine.replace(" ", "-")

    def _take(self, seen: Terminal, step: Step, shown: Callable[[str], str]) -> None:
        """`shown` is how the terminal writes what the page says is seen."""
        gone = step.seen.startswith("gone: ")
        text = shown(squeezed(filled(step.seen.removeprefix("gone: "), self.names)))
        # What is there already would not tell whether the keys did anything.
        new = (text in squeezed(seen.screen.text)) is gone
        assert new or not step.keys, f"{step} tells nothing new:\n{seen.screen.text}"
        for key in step.keys:
            seen.type(typed(key, self.names, seen.screen.copied))
        seen.waits(lambda picture: (text in squeezed(picture)) is not gone, f"{step}")

    def _type(self, line: str, home: list[str]) -> str:
        """At a shell; what it printed. An agent goes on until the tests end."""
        name, *words = shlex.split(filled(line, self.names))
        words = [found for word in words for found in matching(word)]
        assert name == "cic", line
        if words[0] == "control-plane":
            home, words = [], [words[0], *home, *words[1:]]
        command = [sys.executable, "-m", "appliance.cli", *home, *words]
        if words == ["agent"]:
            with (self.folder / "background.log").open("ab") as log:
                self._background.append(
                    subprocess.Popen(command, env=self.environ, stdout=log, stderr=log)
                )
            return ""
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=SHELL_S, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    def close(self) -> None:
        for process in self._background:
            process.terminate()
        for process in self._background:
            process.wait(SHELL_S)


class Busy(Walked):
    """With a model that serves, a tenant and its key, and GPUs that are what is said of them."""

    def __init__(self, site: Site, gpus: FakeGpus, folder: Path) -> None:
        super().__init__(site, folder)
        self.gpus = gpus
        site.tenant("acme")
        site.environment("acme", "prod")
        made = site.admin(
            "POST", "/v1/keys", {"tenant": "acme", "environment": "prod", "name": "app"}
        )
        self.key = Key(made["id"], made["key"], "app", "acme", "prod")
        site.tenant("globex")
        site.environment("globex")
        for name in ("one", "two", "three"):
            body = {"tenant": "globex", "environment": "dev", "name": name}
            site.admin("POST", "/v1/keys", body)
        self.names["LEAKED"] = self.key.secret[:13]
        site.cic(
            *("deployment", "create", "--name", "tiny", "--engine", "llamacpp"),
            *("--model", str(self.model), "--gpus", "1", "--parallel", "1"),
        )
        site.wait_ready("tiny")
        (node,) = site.cic("node", "list")
        self.names["NODE"] = node["name"][:8]  # a longer one may be cut

    def ask(self, tokens: int = 8, key: Key | None = None) -> int:
        """The status of an answer."""
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": "river"}],
            "max_tokens": tokens,
            "stream": True,
        }
        return self.site.post("/chat/completions", body, key or self.key)[0]

    @contextmanager
    def crowd(self, clients: int) -> Iterator[None]:
        """So many who ask again and again, and wait for each answer."""
        over = threading.Event()

        def one() -> None:
            while not over.is_set():
                assert self.ask(900) == 200

        asking = [threading.Thread(target=one) for _ in range(clients)]
        for thread in asking:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in asking:
                thread.join(SHELL_S)

    def renewed(self) -> Key:
        """The key with the secret that was copied last."""
        secret = self.names["COPIED"]
        return Key(self.key.id, secret, self.key.name, self.key.tenant, self.key.environment)

    def introduce(self) -> None:
        """Site and vendor know each other, by hand; what goes on the stick has names of its own."""
        vendor, papers = self.home_of("the vendor"), self.folder / "papers"
        papers.mkdir()
        self._type("cic control-plane init", ["--home", str(vendor)])
        request, pem = papers / "site.request", papers / "vendor.pem"
        self.site.run("sync", "request", "--out", str(request))
        self._type(f"cic control-plane enroll north --request {request}", ["--home", str(vendor)])
        pem.write_text(self._type("cic control-plane key", ["--home", str(vendor)]))
        self._type(f"cic control-plane export --to {papers}", ["--home", str(vendor)])
        (answer,) = papers.glob("*.receipt")
        self.site.run("bundle", "import", str(answer), "--control-plane-key", str(pem))

    def publish(self, name: str) -> None:
        """A pack on the stick, by a publisher of whom this site has not heard."""
        made = self.folder / "publisher-model"
        made.mkdir()
        write_tiny_gguf(made / f"{name}.gguf", seed=11)
        (made / "LICENSE").write_text("Free as the wind.\n")
        pack = self.stick / f"{name}.modelpack"
        self._type(
            f"cic model pack {made} --out {pack}", ["--home", str(self.home_of("a publisher"))]
        )
