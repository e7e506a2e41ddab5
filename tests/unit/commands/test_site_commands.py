"""`cic init` and `cic serve`: making a site, and every reason why one cannot be served."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.settings import load
from appliance.wire.command import ExitCode
from tests.fakes.command_line import Done, cic

CIC = [sys.executable, "-m", "appliance.cli"]


def init(home: Path, *arguments: str) -> Done:
    done = cic("--home", home, "--json", "init", *arguments)
    assert done.code == ExitCode.OK, done
    return done


def contents(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file() and path.suffix not in (".db-shm", ".db-wal")
    }


def test_a_site_is_made_once_and_never_made_anew(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "site"
    made = init(home, "--name", 'Plant "7"', "--region", "eu", "--listen", "[::1]:8443").json
    assert made["made"]
    settings = load(home / "config.toml", {})
    assert (settings.site.name, settings.site.region) == ('Plant "7"', "eu")
    assert settings.gateway.listen == "[::1]:8443"
    before = contents(home)
    again = init(home).json
    assert again["made"] == []
    assert init(home, "--region", "eu").json["made"] == []
    assert contents(home) == before
    assert "nothing was changed" in cic("--home", home, "init").out


def test_nobody_else_may_read_the_secrets(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        init(tmp_path / "site")
    finally:
        os.umask(before)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in [tmp_path / "site", *(tmp_path / "site").rglob("*")]
    }
    assert modes["site"] == 0o750
    assert modes["secrets"] == 0o700
    assert modes["api-key-pepper"] == modes["seal-key"] == 0o600
    assert modes["config.toml"] == 0o640


def test_people_are_told_what_was_made_and_what_comes_next(tmp_path: Path) -> None:
    done = cic("--home", tmp_path / "site", "init")
    assert f"made {tmp_path / 'site' / 'config.toml'}\n" in done.out
    assert done.out.endswith(
        f"Start it with `cic --home {tmp_path / 'site'} serve --with-agent`.\n"
    )


@pytest.mark.parametrize(
    "other", [("--listen", "127.0.0.1:1"), ("--name", "other"), ("--region", "mars")]
)
def test_other_values_for_a_site_that_is_there_are_a_conflict(
    tmp_path: Path, other: tuple[str, str]
) -> None:
    init(tmp_path)
    before = contents(tmp_path)
    done = cic("--home", tmp_path, "--json", "init", *other)
    assert (done.code, done.error["code"]) == (ExitCode.CONFLICT, "already_exists")
    assert "config.toml" in done.error["next_step"]
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "wrong",
    [
        ("--listen", "8080"),
        ("--listen", "::1:8080"),
        ("--listen", "host:99999"),
        ("--listen", "host:"),
        ("--name", ""),
        ("--name", "two\nlines"),
        ("--region", "no spaces"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_made(
    tmp_path: Path, wrong: tuple[str, str]
) -> None:
    home = tmp_path / "site"
    done = cic("--home", home, "--json", "init", *wrong)
    assert (done.code, done.error["code"]) == (ExitCode.USAGE, "invalid_value")
    assert not home.exists()


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = cic("--home", tmp_path / "file", "--json", "init")
    assert (done.code, done.error["code"]) == (ExitCode.CONFIGURATION, "home_not_writable")


def test_without_a_home_the_platforms_folders_are_used(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*CIC, "init"], env=environ, capture_output=True, text=True, timeout=30, check=True
    )
    assert (tmp_path / ".config" / "crosslogic" / "config.toml").is_file()
    assert (tmp_path / ".local" / "share" / "crosslogic" / "registry.db").is_file()
    assert done.stdout.endswith("Start it with `cic serve --with-agent`.\n")


def test_a_lost_secret_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    init(tmp_path)
    (tmp_path / "secrets" / "api-key-pepper").unlink()
    done = cic("--home", tmp_path, "--json", "init")
    assert (done.code, done.error["code"]) == (ExitCode.CONFIGURATION, "secret_missing")
    assert not (tmp_path / "secrets" / "api-key-pepper").exists()


# serve: real processes, because it ends only when it is told to


def serve(home: Path, *arguments: str) -> Done:
    done = subprocess.run(
        [*CIC, "--home", str(home), "--json", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def serving(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A real `cic serve`, from its ready line until SIGTERM; it must then exit with 0."""
    process = subprocess.Popen(
        [*CIC, "--home", str(home), "serve", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready http://127.0.0.1:")
        assert line.endswith("/v1\n")
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_site_is_served_once_and_asked_meanwhile(tmp_path: Path) -> None:
    init(tmp_path, "--name", "alone")
    with serving(tmp_path):
        assert cic("--home", tmp_path, "--json", "status").json["name"] == "alone"
        again = serve(tmp_path, "--listen", "127.0.0.1:0")
        assert (again.code, again.error["code"]) == (ExitCode.CONFLICT, "already_running")
        made = cic("--home", tmp_path, "--json", "tenant", "create", "acme")
        assert made.code == ExitCode.OK
        assert init(tmp_path).json["made"] == []
    assert cic("--home", tmp_path, "--json", "status").error["code"] == "not_running"
    with serving(tmp_path):
        assert cic("--home", tmp_path, "--json", "tenant", "show", "acme").code == ExitCode.OK


def test_a_home_too_deep_for_a_socket_address_is_served(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 30)
    init(home)
    with serving(home):
        assert cic("--home", home, "--json", "status").json["ready"] is True


def test_a_port_in_use_is_one_message(tmp_path: Path) -> None:
    init(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = serve(tmp_path, "--listen", listen)
    assert done.code == ExitCode.CONFIGURATION
    assert listen in done.error["message"]
    assert "--listen" in done.error["next_step"]


def test_bad_settings_name_the_setting(tmp_path: Path) -> None:
    init(tmp_path)
    wrong = {"CIC_TIMEOUTS_HEAD_S": "soon"}
    done = cic("--home", tmp_path, "--json", "serve", environ=wrong)
    assert (done.code, done.error["code"]) == (ExitCode.CONFIGURATION, "bad_settings")
    assert "CIC_TIMEOUTS_HEAD_S" in done.error["message"]
    (tmp_path / "config.toml").write_text("[gateway]\nlisen = 1\n")
    assert "lisen" in cic("--home", tmp_path, "--json", "serve").error["message"]


def test_a_lost_or_open_secret_is_named(tmp_path: Path) -> None:
    init(tmp_path)
    pepper = tmp_path / "secrets" / "api-key-pepper"
    pepper.chmod(0o644)
    done = serve(tmp_path)
    assert (done.code, done.error["code"]) == (ExitCode.CONFIGURATION, "secret_exposed")
    pepper.unlink()
    assert serve(tmp_path).error["code"] == "secret_missing"


def test_a_home_that_cannot_be_served_from_is_named(tmp_path: Path) -> None:
    init(tmp_path)
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("")
    done = serve(tmp_path)
    assert (done.code, done.error["code"]) == (ExitCode.CONFIGURATION, "home_not_writable")
    assert str(tmp_path / "run") in done.error["message"]


def test_a_damaged_registry_is_named(tmp_path: Path) -> None:
    init(tmp_path)
    for path in tmp_path.glob("registry.db*"):
        path.unlink()
    (tmp_path / "registry.db").write_bytes(b"junk" * 4_096)
    done = serve(tmp_path)
    assert (done.code, done.error["code"]) == (ExitCode.DAMAGED, "database_damaged")
