"""Upgrades on a machine that serves: nobody is refused, and what is broken goes back by itself."""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system import sites
from tests.system.machines import LAN, Machine, machine
from tests.system.releases import release, source, units

log = logging.getLogger(__name__)
RELEASES = "/media/releases"
# Broken where only its start shows it: what cannot be imported, the offline trial finds before.
FAILS = "def run(*_, **__):\n    raise RuntimeError('a broken release')\n"
BROKEN = {"app/appliance/main.py": FAILS}


@contextmanager
def asked_without_end(host: Machine) -> Iterator[list[tuple[int, float]]]:
    """One client on the LAN after the other; status and seconds of each request."""
    seen: list[tuple[int, float]] = []
    key = (host.root / "srv/key").read_text().strip()
    one = "curl -s -o /dev/null -w '%{http_code} %{time_total}\\n' --max-time 30 \\\n"
    one += f"-H 'Authorization: Bearer {key}' http://{LAN}:8080/v1/models"
    running = host.started("sh", "-c", f"while [ ! -e /srv/stop ]; do {one}; done")

    def read() -> None:
        assert running.stdout is not None
        for line in running.stdout:
            status, seconds = line.split()
            seen.append((int(status), float(seconds)))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield seen
    finally:
        (host.root / "srv/stop").touch()
        reader.join(60)
        running.communicate()


def test_upgrade_broken_release_and_rollback_under_load(tmp_path: Path) -> None:
    shared = tmp_path / "releases"
    for version, changes in (("0.1.0", {}), ("0.1.1", {}), ("0.1.2", BROKEN)):
        (shared / version).mkdir(parents=True)
        release(shared / version, version, {**source("installer"), **units(), **changes})
    names = {v: sites.NAME.replace(sites.VERSION, v) for v in ("0.1.0", "0.1.1", "0.1.2")}
    with machine("bookworm", tmp_path / "host", {**sites.SHARED, shared: RELEASES}) as host:
        host.boot()
        sites.unpack(host, sites.ENGINE)
        engine = f'\n[engine]\nllamacpp = "/srv/{sites.ENGINE}"\n'
        (host.root / "srv/answers.toml").write_text(sites.WITH_MODEL + engine)
        first = f"{RELEASES}/0.1.0/{names['0.1.0']}/install.sh"
        host.run(first, "--answers", "/srv/answers.toml", "--json")
        engines = host.run("pgrep", "-f", "llamacpp_server")
        with asked_without_end(host) as seen:
            for words, code in (
                (("upgrade", f"{RELEASES}/0.1.1/{names['0.1.1']}", "--yes"), 0),
                (("upgrade", f"{RELEASES}/0.1.2/{names['0.1.2']}", "--yes"), 1),
                (("rollback", "--yes"), 0),
            ):
                ended, _, told = host.code("cic-installer", *words)
                assert ended == code, told
        history = json.loads(host.run("cic-installer", "history", "--json"))
        assert [one["outcome"] for one in history] == [
            "finished", "finished", "rolled back", "finished",
        ]  # fmt: skip
        assert "a broken release" in history[2]["why"]
        log.info("went back by itself in %s s", history[2]["seconds"])
        log.info("%d requests, slowest %.2f s", len(seen), max(took for _, took in seen))
        assert {status for status, _ in seen} == {200}
        assert host.run("pgrep", "-f", "llamacpp_server") == engines  # nobody loaded it anew
        assert sites.completion(host)["usage"]["completion_tokens"] > 0
        host.run("cic", "ledger", "verify")
