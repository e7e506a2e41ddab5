"""The .deb on a machine that boots Debian; the .rpm as far as a machine without RPM can tell."""

import json
import logging
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.system import sites
from tests.system.machines import machine

log = logging.getLogger(__name__)

DEB = f"crosslogic-appliance_{sites.VERSION}_amd64.deb"
RPM = f"crosslogic-appliance-{sites.VERSION}-1.x86_64.rpm"
ANSWERS = "etc/crosslogic/answers.toml"


@pytest.fixture(autouse=True)
def built() -> None:
    for name in (DEB, RPM):
        if not (sites.ROOT / "dist" / name).exists():
            pytest.skip("make packages")


@pytest.mark.parametrize("purge", [False, True])
def test_a_deb_installs_and_goes(tmp_path: Path, *, purge: bool) -> None:
    with machine("bookworm", tmp_path, sites.SHARED) as host:
        host.boot()
        (host.root / ANSWERS).parent.mkdir()
        (host.root / ANSWERS).write_text(sites.WITHOUT_MODEL)
        began = time.monotonic()
        host.run("dpkg", "--install", f"{sites.STICK}/{DEB}")
        log.info("dpkg --install: %.1f s", time.monotonic() - began)
        assert sites.endpoint(host, "/v1/models")["data"] == []
        assert json.loads(host.run("cic-installer", "versions", "--json"))
        host.run("dpkg", "--purge" if purge else "--remove", "crosslogic-appliance")
        assert host.code("systemctl", "is-active", "crosslogic-gateway")[0] != 0
        assert not (host.root / "opt/crosslogic/current").is_symlink()
        data = [host.root / "var/lib/crosslogic/registry.db", host.root / "etc/crosslogic"]
        assert [path.exists() for path in data] == [not purge, not purge]
        accounts = (host.root / "etc/passwd").read_text()
        assert ("crosslogic" in accounts) is not purge


def test_an_rpm_is_whole_and_its_script_installs(tmp_path: Path) -> None:
    file = sites.ROOT / "dist" / RPM
    if not all(shutil.which(tool) for tool in ("rpm", "rpm2cpio", "cpio")):
        pytest.skip("apt-get install rpm cpio")
    checked = subprocess.run(["rpm", "-K", file], check=True, capture_output=True, text=True)
    assert "digests OK" in checked.stdout or "digests signatures OK" in checked.stdout
    scripts = subprocess.run(
        ["rpm", "-qp", "--qf", "%{POSTIN}", file], check=True, capture_output=True, text=True
    ).stdout
    with machine("bookworm", tmp_path, sites.SHARED) as host:
        archive = subprocess.run(["rpm2cpio", file], check=True, capture_output=True).stdout
        subprocess.run(
            ["cpio", "--extract", "--make-directories", "--quiet"],
            check=True,
            input=archive,
            cwd=host.root,
        )
        (host.root / ANSWERS).parent.mkdir()
        (host.root / ANSWERS).write_text(sites.WITHOUT_MODEL)
        (host.root / "srv/after-install.sh").write_text(scripts)
        host.boot()
        host.run("sh", "/srv/after-install.sh", "1")
        assert sites.endpoint(host, "/v1/models")["data"] == []
