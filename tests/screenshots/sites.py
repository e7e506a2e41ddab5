"""The sites of the pictures: one just installed, one at work, and what goes wrong there."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.fakes.nvml_library import LOST, FakeGpus, build_library
from tests.fakes.site import Key, Site, running_site
from tests.fakes.tiny_gguf import write_tiny_gguf

GPUS: Final = 8
READY_S: Final = 120.0
PAST_S: Final = 100.0  # of traffic before the first picture: plots and minutes have something
_TENANTS: Final = ("acme", "city-hospital", "institute-of-physics")
_MODELS: Final = (("tiny-chat", 7, "2"), ("tiny-code", 11, "1"))
_LOST_GPU: Final = 5
Say = Callable[[str], None]


@contextmanager
def empty(folder: Path) -> Iterator[Site]:
    """`cic init` and the service, and nothing else was done."""
    with running_site(folder, settings={"CIC_SITE_NAME": "gpubox-01"}) as site:
        yield site


@contextmanager
def busy(folder: Path, say: Say) -> Iterator["Busy"]:
    gpus = FakeGpus(build_library(folder), folder, count=GPUS)
    for index in range(GPUS):
        gpus.set(
            index,
            temp=46 + 3 * index,
            power=210_000 + 31_000 * index,
            util_gpu=(97, 88, 64, 35, 71, 12, 0, 3)[index],
            clock_sm=1_755,
            mem_used=(61 - 7 * index) * 1024**3,
        )
    settings = {**gpus.environ, "CIC_SITE_NAME": "gpubox-01", "CIC_SYNC_MODE": "offline"}
    with running_site(folder, settings=settings, with_agent=True) as site:
        made = Busy(site, gpus, folder)
        made.prepare(say)
        try:
            yield made
        finally:
            made.over.set()
            for thread in made.crowd:
                thread.join(30)


class Busy:
    """Tenants who ask all the time, of engines that answer."""

    def __init__(self, site: Site, gpus: FakeGpus, folder: Path) -> None:
        self.site = site
        self.gpus = gpus
        self.folder = folder
        self.over = threading.Event()
        self.crowd: list[threading.Thread] = []

    def prepare(self, say: Say) -> None:
        site = self.site
        for name, seed, replicas in _MODELS:
            model = write_tiny_gguf(self.folder / f"{name}.gguf", seed=seed)
            made = ("--name", name, "--engine", "llamacpp", "--model", str(model))
            site.cic("deployment", "create", *made, "--gpus", "1", "--replicas", replicas)
        for name, _, _ in _MODELS:
            site.wait_ready(name, READY_S)
            say(f"ready    {name}")
        for number, tenant in enumerate(_TENANTS):
            site.cic("tenant", "create", tenant, "--plan", "business")
            site.cic("env", "create", "prod", "--tenant", tenant)
            key = site.key(tenant=tenant, environment="prod")
            for _ in range(3 - number):
                asking = threading.Thread(target=self._ask, args=(key,))
                asking.start()
                self.crowd.append(asking)
        site.until(self._measured, READY_S, "the capacity to be measured")
        site.cic("reservation", "create", "city-hospital", "tiny-chat", "150", "--env", "prod")
        site.cic("limit", "set", "--tenant", "acme", "--rpm", "600")
        say(f"traffic  {PAST_S:.0f} s of it")
        time.sleep(PAST_S)
        site.cic("manifest", "seal")
        site.cic("backup", "create")

    def go_wrong(self) -> None:
        """A GPU falls off the bus; an engine elsewhere does not answer."""
        self.gpus.set(_LOST_GPU, fail=LOST)
        self.site.cic(
            *("deployment", "create", "--name", "far-away", "--engine", "external"),
            *("--url", "http://127.0.0.1:9"),
        )

    def _measured(self) -> bool:
        rows = self.site.cic("reservation", "capacity")
        return all(row["measured_tokens_per_s"] for row in rows)

    def _ask(self, key: Key) -> None:
        turn = 0
        while not self.over.is_set():
            turn += 1
            model = _MODELS[turn % 2][0]
            message = {"role": "user", "content": f"river {turn}"}
            body = {"model": model, "messages": [message], "max_tokens": 160, "stream": True}
            with suppress(OSError, json.JSONDecodeError):
                self.site.post("/chat/completions", body, key)
            self.over.wait(0.15)
