"""The real appliance and the real control plane, each a process: by wire, without it, and with the
appliance's home restored from a backup.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fakes.engine import engine_in_thread
from tests.fakes.site import Key, Site, running_site
from tests.fakes.vendor_process import VendorProcess, vendor_process

SETTINGS = {"CIC_SYNC_INTERVAL_S": "1", "CIC_SYNC_BACKOFF_S": "0.2", "CIC_SYNC_BACKOFF_S_MAX": "1"}
WAIT_S = 30.0


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[VendorProcess]:
    with vendor_process(tmp_path) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path, settings=SETTINGS) as running, engine_in_thread() as engine:
        running.deployment("fault", engine.url)
        yield running


def chat(site: Site, key: Key, count: int = 1) -> int:
    """Answered requests; their tokens as the engine told them."""
    tokens = 0
    for _ in range(count):
        body = {"model": "fault", "messages": [{"role": "user", "content": "hello"}]}
        status, _, content = site.post("/chat/completions", body, key)
        assert status == 200, content
        usage = json.loads(content)["usage"]
        tokens += usage["prompt_tokens"] + usage["completion_tokens"]
    return tokens


def enrol(site: Site, vendor: VendorProcess, name: str = "factory-7") -> None:
    code = vendor.cic("enroll", name)["code"]
    site.cic("sync", "enrol", vendor.url, code)


def status(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = site.cic("sync", "status")
    return found


def receipted(site: Site) -> dict[str, Any]:
    """Seal what there is, and wait until a receipt covers it."""
    site.cic("manifest", "seal")

    def done() -> dict[str, Any] | None:
        found = status(site)
        return found if found["lag_manifests"] == 0 and found["sealed_through"] else None

    return site.until(done, WAIT_S, "a receipt for every manifest")


def reported(vendor: VendorProcess) -> dict[str, Any]:
    shown: dict[str, Any] = vendor.cic("sites", "show", "factory-7")
    return shown


def test_what_was_served_is_receipted_and_stays_so_after_kills(
    site: Site, vendor: VendorProcess
) -> None:
    key = site.key()
    chat(site, key, 3)
    enrol(site, vendor)
    first = receipted(site)
    assert (first["state"], first["accepted_through"]) == ("connected", 1)
    vendor.stop()
    chat(site, key, 2)
    site.cic("manifest", "seal")
    lost = site.until(
        lambda: (s := status(site))["state"] == "offline" and s, WAIT_S, "the loss to be seen"
    )
    assert lost["last_error"]
    assert lost["lag_manifests"] == 1
    site.kill()
    vendor.start()
    site.start()
    assert receipted(site)["accepted_through"] == 2
    assert site.cic("sync", "now")["ok"]
    entitlement = site.cic("entitlement", "show")
    assert entitlement["stage"] == "active"
    assert entitlement["days_left"] in {29, 30}


def test_a_code_for_another_control_plane_leaves_the_site_without_its_secret(
    site: Site, vendor: VendorProcess
) -> None:
    code = vendor.cic("enroll", "factory-7")["code"]
    other_pin = re.sub(r"[0-9a-f]{32}$", "0" * 32, code)
    refused = site.run("--json", "sync", "enrol", vendor.url, other_pin, check=False)
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["error"]["code"] == "bad_enrolment_code"
    assert status(site)["state"] == "never enrolled"
    site.cic("sync", "enrol", vendor.url, code)
    # The same site with the same code: its first answer may have been lost on the way.
    again = site.run("--json", "sync", "enrol", vendor.url, code)
    secret = code.split(".")[1]
    written = [site.stderr.read_text(), site.stdout.read_text(), vendor.stderr.read_text()]
    assert not any(secret in text for text in (*written, refused.stdout, again.stdout))


def test_by_hand_alone(site: Site, vendor: VendorProcess, tmp_path: Path) -> None:
    """No wire: the request out, the licence in, usage out, receipt in."""
    site.stop()
    site.settings["CIC_SYNC_MODE"] = "offline"
    site.start()
    chat(site, site.key(), 2)
    request, stick, key_file = tmp_path / "request.json", tmp_path / "stick", tmp_path / "cp.pem"
    stick.mkdir()
    site.cic("sync", "request", "--out", str(request))
    vendor.cic("enroll", "factory-7", "--request", request)
    licence = tmp_path / "licence.json"
    vendor.cic("entitlement", "issue", "factory-7", "--gpus", "2", "--out", licence)
    key_file.write_text(
        subprocess.run(
            [word for word in vendor.command if word != "--json"] + ["key"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    unpinned = site.run("--json", "entitlement", "install", str(licence), check=False)
    assert unpinned.returncode == 4
    assert "--control-plane-key" in json.loads(unpinned.stdout)["error"]["next_step"]
    found = site.cic("entitlement", "install", str(licence), "--control-plane-key", str(key_file))
    assert (found["stage"], found["gpu_count"]) == ("active", 2)
    (usage,) = site.cic("bundle", "export", "--to", str(stick))["files"]
    vendor.cic("import", usage["path"])
    vendor.cic("export", "--to", stick, "--site", "factory-7")
    (receipt,) = stick.glob("*.receipt")
    assert site.cic("bundle", "import", str(receipt))["ok"]
    assert site.cic("bundle", "import", str(receipt))["ok"]  # again, harmless
    after = status(site)
    assert (after["lag_manifests"], after["state"]) == (0, "offline")


def test_a_restored_home_is_found_and_comes_back_by_a_grant(
    site: Site, vendor: VendorProcess, tmp_path: Path
) -> None:
    key = site.key()
    enrol(site, vendor)
    tokens = chat(site, key, 2)
    receipted(site)
    site.stop()
    shutil.copytree(site.home, tmp_path / "backup")
    site.start()
    site.wait_ready("fault")
    tokens += chat(site, key, 3)
    receipted(site)
    site.stop()
    shutil.rmtree(site.home)
    shutil.copytree(tmp_path / "backup", site.home)
    site.start()
    frozen = site.until(
        lambda: (s := status(site))["state"] == "frozen" and s, WAIT_S, "the copy to be found"
    )
    assert "restored from a backup" in frozen["frozen_reason"] + frozen["alarm_detail"]
    assert "cic sync request --new-key" in frozen["next_step"]
    site.wait_ready("fault")
    tokens += chat(site, key, 4)  # serving and metering go on
    refused = site.run("--json", "sync", "now", check=False)
    assert refused.returncode == 1
    request = tmp_path / "request.json"
    site.cic("sync", "request", "--new-key", "--out", str(request))
    vendor.cic(
        "grant-epoch", "factory-7", "--request", request, "--reason", "restored from a backup"
    )
    site.until(lambda: status(site)["epoch"] == 2, WAIT_S, "the grant to arrive")
    after = receipted(site)
    assert (after["state"], after["epoch"], after["alarm"]) == ("connected", 2, "")
    shown = reported(vendor)
    assert shown["input_tokens"] + shown["output_tokens"] == tokens
    assert shown["requests"] == 9
    assert (shown["state"], shown["epoch"]) == ("active", 2)


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace on this machine")
def test_offline_means_that_no_socket_is_opened_and_no_name_looked_up(
    site: Site, vendor: VendorProcess, tmp_path: Path
) -> None:
    """The system's own word: every connect of the process, with a control that sees some."""
    enrol(site, vendor)
    (deployment,) = site.admin("GET", "/v1/deployments")
    engine = f"htons({urlsplit(deployment['url']).port})"  # which the gateway probes, on loopback
    url, code = "https://control-plane.invalid", "clxe_a.b." + "0" * 32

    def connects(mode: str) -> list[str]:
        """What the running appliance sends to any network, beside its engine."""
        site.stop()
        site.settings |= {"CIC_SYNC_MODE": mode, "CIC_SYNC_CONTROL_PLANE_URL": url}
        site.start()
        trace = tmp_path / f"trace-{mode}"
        calls = ["-e", "trace=connect,sendto,sendmsg,sendmmsg"]
        with subprocess.Popen(
            ["strace", "-f", *calls, "-o", str(trace), "-p", str(site.pid)], stderr=subprocess.PIPE
        ) as tracing:
            assert tracing.stderr is not None
            if b"attached" not in tracing.stderr.readline():
                pytest.skip("this account may not trace")
            site.run("sync", "now", check=False)
            site.run("sync", "enrol", url, code, check=False)
            site.cic("manifest", "seal")
            site.cic("status")
            tracing.terminate()
        lines = trace.read_text().splitlines()
        return [line for line in lines if "AF_INET" in line and engine not in line]

    assert connects("online") != []
    assert connects("offline") == []
