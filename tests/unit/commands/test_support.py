"""The support bundle: what is in it, and that none of fifty planted secrets is."""

import io
import json
import logging
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.cli import cic
from appliance.commands.support import COLLECTORS
from appliance.security.redaction import REDACTED, Redactor
from tests.fakes.admin_site import AdminSite, served

_LOG = logging.getLogger("appliance.test")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AdminSite]:
    with served(tmp_path / "home") as running:
        yield running


def bundle(home: Path, to: Path) -> dict[str, str]:
    arguments = ["--home", str(home), "--json", "support", "create", "--to", str(to)]
    made = CliRunner().invoke(cic, arguments)
    assert made.exit_code == 0, made.output
    assert to.stat().st_mode & 0o777 == 0o600
    with tarfile.open(to) as archive:
        return {
            member.name: (archive.extractfile(member) or io.BytesIO()).read().decode()
            for member in archive
        }


def test_it_holds_what_was_listed_and_nothing_else(site: AdminSite, tmp_path: Path) -> None:
    files = bundle(site.home.config, tmp_path / "case.tar.gz")
    assert set(files) == {"support/README.txt", *(f"support/{each.name}" for each in COLLECTORS)}
    assert json.loads(files["support/status.json"])["name"] == "test"
    listed = CliRunner().invoke(cic, ["--json", "support", "list"])
    assert [each["name"] for each in json.loads(listed.output)] == [c.name for c in COLLECTORS]


def canaries(home: Path) -> dict[str, str]:
    """Fifty secrets by where they were planted."""
    planted: dict[str, str] = {}
    for number in range(10):
        value = os.urandom(32)
        (home / "secrets" / f"canary-{number}").write_bytes(value)
        planted[f"secret file {number}"] = value.hex()
        _LOG.warning("canary", extra={"value": value.hex()})
    shapes = {
        "client key": "clsk_live_Abcdefgh{n:02}ZyXwVuTsRq",
        "join token": "clnt_ab{n:02}cd.s3cr3tS3cr3tS3cr3t.0123456789abcdef",
        "Stripe key": "sk_live_{n:02}abcdefghijklmnopqrstuv",
        "cloud key": "AKIA{n:02}ABCDEFGHIJKLMN",
        "web token": "eyJhbGciOiJI{n:02}.eyJzdWIiOiIx.c2lnbmF0dXJl{n:02}",
        "bearer": "Bearer abcdef{n:02}0123456789",
        "password": "password=hunter{n:02}hunter",
        "URL": "https://root:pass{n:02}word@proxy.example:3128/",
    }
    for number in range(5):
        for name, shape in shapes.items():
            text = shape.format(n=number)
            _LOG.warning(f"something went wrong with {text} just now")
            planted[f"{name} {number}"] = text.removeprefix("Bearer ").removeprefix("password=")
            if name == "URL":
                planted[f"{name} {number}"] = f"pass{number:02}word"
    return planted


def test_none_of_fifty_planted_secrets_is_inside(
    site: AdminSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.getLogger().addHandler(site.services.upkeep.logs)
    try:
        planted = canaries(site.home.config)
    finally:
        logging.getLogger().removeHandler(site.services.upkeep.logs)
    assert len(planted) == 50
    monkeypatch.setenv("SOME_SECRET", "canary-of-the-environment")
    files = bundle(site.home.config, tmp_path / "case.tar.gz")
    text = "\n".join(files.values())
    assert "something went wrong" in files["support/log.ndjson"]  # the lines themselves are there
    assert {name for name, value in planted.items() if value in text} == set()
    assert "canary-of-the-environment" not in text
    assert text.count(REDACTED) >= 50


def test_a_site_that_does_not_run_gives_what_it_can(site: AdminSite, tmp_path: Path) -> None:
    home = tmp_path / "stopped"
    CliRunner().invoke(cic, ["--home", str(home), "init"])
    files = bundle(home, tmp_path / "case.tar.gz")
    assert "left out: " in files["support/status.json"]
    assert "registry.db" in files["support/files.txt"]
    del site


def test_a_file_that_is_there_is_not_written_over(site: AdminSite, tmp_path: Path) -> None:
    (tmp_path / "case").write_text("mine")
    arguments = [
        "--home",
        str(site.home.config),
        "support",
        "create",
        "--to",
        str(tmp_path / "case"),
    ]
    assert CliRunner().invoke(cic, arguments).exit_code != 0
    assert (tmp_path / "case").read_text() == "mine"


@pytest.mark.parametrize(
    "text",
    [
        '{"tokens_per_min": 100, "api_key": null, "has_api_key": true}',
        "tenant acme: 120 tokens out, key app (clsk)",
        "https://gpubox-01:8443/v1 is the endpoint",
        "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor([b"x" * 32]).clean(text) == text
