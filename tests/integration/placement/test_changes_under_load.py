"""Changes, moves and unloading while clients ask all the time: a real site with two real agents."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.site import Key, Site, running_site
from tests.fakes.tiny_gguf import write_tiny_gguf

ASKING = 3
DEADLINE_S = 45.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path, settings={"CIC_FLEET_HEARTBEAT_S": "0.2"}) as site:
        yield site


@contextmanager
def agents(site: Site, *names: str) -> Iterator[None]:
    """An agent of each name on this host, as many nodes."""
    started = []
    try:
        for name in names:
            home = site.folder / name
            socket = site.home / "run" / "agent.sock"
            command = [sys.executable, "-m", "appliance.cli", "--home", str(home), "agent"]
            with (site.folder / f"{name}.err").open("wb") as errors:
                process = subprocess.Popen(
                    [*command, "--name", name, "--socket", str(socket)],
                    stderr=errors,
                    env=site.environ,
                    start_new_session=True,
                )
            started.append(process)
        site.until(
            lambda: (
                {n["name"] for n in site.cic("node", "list") if n["state"] == "ready"} >= set(names)
            ),
            DEADLINE_S,
            "the nodes to be ready",
        )
        yield
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(30)


class Load:
    """Clients that ask one after the other, and every answer that was not 200."""

    def __init__(self, site: Site, key: Key) -> None:
        self._site, self._key = site, key
        self._stop = threading.Event()
        self.answers = 0
        self.refused: list[tuple[int, bytes]] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(ASKING)]

    def _ask(self) -> None:
        body = {"model": "small", "prompt": "river", "max_tokens": 24}
        while not self._stop.is_set():
            status, _, content = self._site.post("/completions", body, self._key)
            self.answers += 1
            if status != 200:
                self.refused.append((status, content))

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def deploy(site: Site, *options: str) -> Key:
    model = write_tiny_gguf(site.folder / "small.gguf")
    made = ("--name", "small", "--engine", "llamacpp", "--model", str(model), "--context", "256")
    site.cic("deployment", "create", *made, *options, "--wait", "--wait-timeout", "60")
    return site.key()


def nodes_of(site: Site) -> list[str]:
    return sorted(r["node"] for r in site.cic("deployment", "show", "small")["replicas"])


def settled(site: Site, **wanted: object) -> bool:
    row = site.cic("deployment", "show", "small")
    generations = {replica["generation"] for replica in row["replicas"]}
    return (
        row["state"] == "ready"
        and generations == {row["generation"]}
        and len(row["replicas"]) == row["replicas_wanted"]
        and all(row[name] == value for name, value in wanted.items())
    )


def test_no_request_fails_while_a_deployment_is_changed_and_its_nodes_are_drained(
    site: Site,
) -> None:
    with agents(site, "a", "b"):
        key = deploy(site, "--replicas", "2")
        assert nodes_of(site) == ["a", "b"]
        with Load(site, key) as load:
            update = ("deployment", "update", "small", "--parallel", "3", "--wait")
            changed = site.cic(*update, "--wait-timeout", "60")
            assert {r["generation"] for r in changed["replicas"]} == {2}
            site.cic("node", "drain", "a", "--reason", "new fans")
            site.until(lambda: nodes_of(site) == ["b", "b"], DEADLINE_S, "a to be drained")
            site.until(
                lambda: site.cic("node", "show", "a")["state"] == "maintenance",
                DEADLINE_S,
                "a to be in maintenance",
            )
            site.cic("node", "resume", "a")
            site.cic("deployment", "scale", "small", "3")
            site.until(lambda: nodes_of(site) == ["a", "b", "b"], DEADLINE_S, "three replicas")
            site.cic("node", "drain", "b")
            site.until(lambda: nodes_of(site) == ["a"] * 3, DEADLINE_S, "b to be drained")
            site.until(lambda: settled(site), DEADLINE_S, "all to be as wanted")
        assert load.answers > 50
        assert load.refused == []
        site.wait_idle()
        counted = [row for row in site.ledger() if row["operation"] == "completions"]
        assert len(counted) == load.answers, "every answer once in the ledger"
    shown = site.cic("node", "show", "b")
    assert (shown["wish"], shown["wished_by"] != "") == ("draining", True)
    site.restart()
    assert site.cic("node", "show", "b")["wish"] == "draining", "it survives a restart"


def test_the_only_node_keeps_what_has_no_other_place_until_maintenance(site: Site) -> None:
    with agents(site, "a"):
        key = deploy(site)
        site.cic("node", "drain", "a")
        site.until(
            lambda: "small stays" in site.cic("node", "show", "a")["reason"],
            DEADLINE_S,
            "the reason to be shown",
        )
        body = {"model": "small", "prompt": "river", "max_tokens": 4}
        assert site.post("/completions", body, key)[0] == 200
        assert site.cic("node", "show", "a")["state"] == "draining"
        site.cic("node", "maintenance", "a")
        site.until(
            lambda: site.cic("node", "show", "a")["state"] == "maintenance", DEADLINE_S, "the end"
        )
        assert site.post("/completions", body, key)[0] == 503
        explained = site.cic("deployment", "explain", "small")
        assert explained["nodes"][0]["reasons"] == ["it is in maintenance"]
        site.cic("node", "resume", "a")
        site.wait_ready("small")
        assert site.post("/completions", body, key)[0] == 200


def test_what_nobody_asks_for_is_unloaded_and_loaded_for_the_next_who_asks(site: Site) -> None:
    with agents(site, "a"):
        key = deploy(site, "--idle-unload", "10")
        site.until(
            lambda: site.cic("deployment", "show", "small")["state"] == "unloaded",
            DEADLINE_S,
            "it to be unloaded",
        )
        body = {"model": "small", "prompt": "river", "max_tokens": 4}
        status, headers, content = site.post("/completions", body, key)
        assert (status, b"model_loading" in content) == (503, True)
        assert 1 <= int(headers["retry-after"]) <= 10, "a small model loads in seconds"
        # On a slow machine it may be idle for so long again before it is asked.
        site.until(
            lambda: site.post("/completions", body, key)[0] == 200,
            DEADLINE_S,
            "it to be loaded for who asks",
        )
