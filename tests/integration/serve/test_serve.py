"""`cic serve` as an administrator meets it: what it says when it cannot start, and how it ends."""

import json
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.site import Site, running_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path) as running:
        yield running


def refusal(site: Site, *arguments: str) -> tuple[int, dict[str, str]]:
    """Exit code and error of a command that must not succeed."""
    done = site.run("--json", *arguments, check=False)
    assert "Traceback" not in done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["message"]
    assert error["next_step"]
    return done.returncode, error


def test_it_says_where_it_is_and_ends_in_order(site: Site) -> None:
    endpoint_file = site.home / "run" / "endpoint"
    assert endpoint_file.read_text().strip() == site.base_url
    with urllib.request.urlopen(site.base_url.replace("/v1", "/readyz"), timeout=5) as answer:
        assert answer.status == 200
    assert site.stop() == 0
    assert not endpoint_file.exists()
    assert not (site.home / "run" / "admin.sock").exists()
    events = [json.loads(line) for line in site.stderr.read_text().splitlines()]
    assert [event["event"] for event in events][-2:] == ["stopping", "stopped"]


def test_ctrl_c_is_no_crash(site: Site) -> None:
    site.signal(signal.SIGINT)
    assert site.wait() == 0
    assert "Traceback" not in site.stderr.read_text()


def test_a_second_appliance_in_the_same_home_is_refused(site: Site) -> None:
    code, error = refusal(site, "serve", "--listen", "127.0.0.1:0")
    assert (code, error["code"]) == (4, "already_running")
    assert str(site.pid) in error["message"]
    assert site.admin("GET", "/v1/status")["ready"]  # the first one is not disturbed


def test_a_killed_appliance_starts_again(site: Site) -> None:
    tenant = site.tenant()
    site.kill()
    site.start()
    assert [row["name"] for row in site.admin("GET", "/v1/tenants")] == [tenant]


def test_a_port_that_is_in_use(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.init()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        code, error = refusal(site, "serve", "--listen", listen)
    assert (code, error["code"]) == (7, "address_unusable")
    assert listen in error["message"]
    site.start()  # the failed start left nothing behind
    assert site.stop() == 0


def test_a_node_api_that_cannot_listen_is_a_matter_of_configuration(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        site = Site(tmp_path, settings={"CIC_NODES_LISTEN": listen})
        site.init()
        code, error = refusal(site, "serve", "--listen", "127.0.0.1:0")
    assert (code, error["code"]) == (7, "node_api_closed")
    site = Site(tmp_path, settings={"CIC_NODES_LISTEN": "127.0.0.1:many"})
    code, error = refusal(site, "serve", "--listen", "127.0.0.1:0")
    assert (code, error["code"]) == (7, "no_address")


@pytest.mark.parametrize("listen", ["8080", "127.0.0.1:http", "127.0.0.1:65536", ":8080"])
def test_an_address_that_is_none(tmp_path: Path, listen: str) -> None:
    site = Site(tmp_path)
    site.init()
    code, error = refusal(site, "serve", "--listen", listen)
    assert (code, error["code"]) == (2, "invalid_value")


def test_an_unknown_home(tmp_path: Path) -> None:
    code, error = refusal(Site(tmp_path), "serve")
    assert (code, error["code"]) == (7, "unknown_home")
    assert "init" in error["next_step"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("[gateway\n", "TOML"),
        ("[gateway]\nlisten_on = 3\n", "gateway.listen_on"),
        ('[timeouts]\nhead_s = "3"\n', "timeouts.head_s"),
        ("[gatewai]\n", "[gatewai]"),
    ],
)
def test_bad_configuration_is_named(tmp_path: Path, line: str, named: str) -> None:
    site = Site(tmp_path)
    site.init()
    (site.home / "config.toml").write_text(line)
    code, error = refusal(site, "serve")
    assert (code, error["code"]) == (7, "bad_settings")
    assert named in error["message"]


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path, settings={"CIC_TIMEOUTS_HEAD_S": "soon"})
    site.init()
    code, error = refusal(site, "serve")
    assert (code, error["code"]) == (7, "bad_settings")
    assert "CIC_TIMEOUTS_HEAD_S" in error["message"]


def test_a_missing_secret_and_a_damaged_database_are_named(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.init()
    registry = site.home / "registry.db"
    sound = registry.read_bytes()
    registry.write_bytes(b"not a database" * 100)
    code, error = refusal(site, "serve")
    assert (code, error["code"]) == (6, "database_damaged")
    registry.write_bytes(sound)
    secrets = list((site.home / "secrets").iterdir())
    secrets[0].unlink()
    code, error = refusal(site, "serve")
    assert code == 7
    assert str(secrets[0]) in error["message"]


def test_it_stands_alone_without_a_network(tmp_path: Path) -> None:
    """In a network namespace that has only loopback, a site starts and answers."""
    site = Site(tmp_path)
    site.init()
    script = "ip link set lo up && exec timeout 20 " + " ".join(
        [*site.command, "serve", "--listen", "127.0.0.1:0"]
    )
    probe = subprocess.run(["unshare", "-rn", "true"], check=False, capture_output=True)
    if probe.returncode:
        pytest.skip("this kernel gives no network namespaces to this account")
    with subprocess.Popen(
        ["unshare", "-rn", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready ")
        assert site.admin("GET", "/v1/status")["ready"]
        process.terminate()
        assert process.wait(20) == 0
