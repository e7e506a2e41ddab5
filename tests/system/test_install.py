"""From a stick to a completion on the LAN, on machines without a network, and back to nothing."""

import json
import logging
import shutil
import time
from pathlib import Path

import pytest

from tests.system import sites
from tests.system.machines import LAN, files_of, machine

log = logging.getLogger(__name__)

SUITES = ("bookworm", "bullseye")  # glibc 2.36 and 2.31
FOLDERS = ("etc", "opt", "usr", "var/lib", "var/log", "srv", "root")
# What the system itself writes when an account comes and goes, or a unit is loaded.
OF_THE_SYSTEM = ("etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "etc/subuid", "etc/subgid",
    "var/log/", "var/lib/systemd", "var/lib/private", "etc/.pwd.lock", "etc/machine-id",
    "etc/.updated", "var/.updated")  # fmt: skip


@pytest.mark.parametrize("suite", SUITES)
def test_a_bare_machine_answers_on_its_lan(suite: str, tmp_path: Path) -> None:
    with machine(suite, tmp_path, sites.SHARED) as host:
        host.boot()
        installed = sites.install(host, sites.WITH_MODEL)
        began = time.monotonic()
        said = sites.completion(host)
        whole_s = installed.unpack_s + installed.install_s + time.monotonic() - began
        log.info("%s: bundle to completion %.1f s (%s)", suite, whole_s, installed)
        assert said["choices"][0]["message"]["content"]
        assert said["usage"]["completion_tokens"] > 0
        assert installed.card["endpoint"] == f"http://{LAN}:8080/v1"
        assert installed.card["running"] is True
        assert "clsk_" not in json.dumps(installed.card)
        usage = json.loads(host.run("cic", "--json", "usage"))
        assert usage
        for unit in ("crosslogic-gateway", "crosslogic-agent"):
            assert host.run("systemctl", "is-active", unit).strip() == "active"


def test_without_engine_and_model_it_takes_seconds(tmp_path: Path) -> None:
    with machine("bookworm", tmp_path, sites.SHARED) as host:
        host.boot()
        installed = sites.install(host, sites.WITHOUT_MODEL)
        log.info("no model: %.1f s", installed.unpack_s + installed.install_s)
        assert sites.endpoint(host, "/v1/models")["data"] == []


def test_a_purge_leaves_nothing(tmp_path: Path) -> None:
    with machine("bookworm", tmp_path, sites.SHARED) as host:
        host.boot()
        before = files_of(host.root, FOLDERS)
        sites.install(host, sites.WITHOUT_MODEL)
        assert len(files_of(host.root, FOLDERS)) > len(before) + 1_000
        host.run("cic-installer", "uninstall", "--purge", "--yes")
        for ours in ("answers.toml", "key"):
            (host.root / "srv" / ours).unlink()
        shutil.rmtree(host.root / "srv" / sites.NAME)
        after = files_of(host.root, FOLDERS)
        odd = {
            path
            for path in before.keys() ^ after.keys()
            | {path for path in before.keys() & after.keys() if before[path] != after[path]}
            if not path.startswith(OF_THE_SYSTEM)
        }
        assert odd == set()
        assert "crosslogic" not in (host.root / "etc/passwd").read_text()
        assert host.code("systemctl", "status", "crosslogic-gateway")[0] == 4  # no such unit


def test_it_comes_back_after_a_power_cut(tmp_path: Path) -> None:
    with machine("bookworm", tmp_path, sites.SHARED) as host:
        host.boot()
        sites.install(host, sites.WITHOUT_MODEL)
        host.cut_power()
        host.boot()
        ends_at = time.monotonic() + 30
        while host.code("cic", "status")[0] != 0 and time.monotonic() < ends_at:
            time.sleep(0.2)
        assert sites.endpoint(host, "/v1/models")["data"] == []
        host.run("cic", "ledger", "verify")


STEPS = ("accounts", "tree", "folders", "settings", "site", "certificate", "commands", "units",
    "start", "tenant", "key")  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_a_power_cut_within_a_step_is_resumed(step: str, tmp_path: Path) -> None:
    with machine("bookworm", tmp_path, sites.SHARED) as host:
        host.boot()
        sites.unpack(host, sites.NAME)
        (host.root / "srv/answers.toml").write_text(sites.WITHOUT_MODEL)
        install = (f"/srv/{sites.NAME}/install.sh", "--answers", "/srv/answers.toml", "--json")
        running = host.started(*install)
        journal = host.root / "var/lib/crosslogic-installer/journal.jsonl"
        ends_at = time.monotonic() + 60
        while time.monotonic() < ends_at and running.poll() is None:
            if journal.exists() and f'"{step}"' in journal.read_text().split('"facts"')[-1]:
                break
            time.sleep(0.002)
        assert running.poll() is None, "the installation ended before the power was cut"
        host.cut_power()
        running.communicate()
        host.boot()
        card = json.loads(host.run(*install))
        assert card["running"] is True
        assert sites.endpoint(host, "/v1/models")["data"] == []


def test_a_changed_byte_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with machine("bookworm", tmp_path, sites.SHARED) as host:
        host.boot()
        sites.unpack(host, sites.NAME)
        bundle = host.root / "srv" / sites.NAME
        before = files_of(host.root, ("etc", "opt", "usr", "var/lib"))
        for name in ("tree/app/installer/main.py", "tree/python/bin/python3", "SHA256SUMS"):
            file = bundle / name
            whole = file.read_bytes()
            file.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
            code, out, errors = host.code(f"/srv/{sites.NAME}/install.sh", "--yes")
            assert (code, out) == (4, ""), (name, errors)
            file.write_bytes(whole)
        (bundle / "tree/app/sitecustomize.py").write_text("raise SystemExit(0)")
        assert host.code(f"/srv/{sites.NAME}/install.sh", "--yes")[0] == 4
        assert files_of(host.root, ("etc", "opt", "usr", "var/lib")) == before
