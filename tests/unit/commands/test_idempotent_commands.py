"""A command that is started again with the same CIC_IDEMPOTENCY_KEY changes nothing twice."""

from pathlib import Path

from appliance.commands.client import request_key
from appliance.wire.command import ExitCode
from tests.fakes.admin_site import make_home, served
from tests.fakes.command_line import cic


def test_the_same_key_makes_one_tenant_and_another_is_refused_as_taken(tmp_path: Path) -> None:
    make_home(tmp_path)
    with served(tmp_path):
        line = ("--home", tmp_path, "--json", "tenant", "create", "acme")
        first = cic(*line, environ={"CIC_IDEMPOTENCY_KEY": "press-1"})
        again = cic(*line, environ={"CIC_IDEMPOTENCY_KEY": "press-1"})
        other = cic(*line, environ={"CIC_IDEMPOTENCY_KEY": "press-2"})
        without = cic(*line)
    assert first.code == again.code == ExitCode.OK
    assert again.json == first.json
    assert other.error["code"] == without.error["code"] == "already_exists"


def test_a_form_that_is_sent_again_changed_is_another_request(tmp_path: Path) -> None:
    make_home(tmp_path)
    with served(tmp_path):
        for name in ("acme", "beta"):
            done = cic(
                *("--home", tmp_path, "--json", "tenant", "create", name),
                environ={"CIC_IDEMPOTENCY_KEY": "one-dialog"},
            )
            assert done.json["name"] == name


def test_each_request_of_a_command_has_a_key_of_its_own() -> None:
    keys = {
        request_key("k", method, target, body)
        for method in ("POST", "PATCH")
        for target in ("/v1/tenants", "/v1/tenants/a")
        for body in (b"", b"{}")
    }
    assert len(keys) == 8
    assert all(len(key) <= 255 and key.isascii() and key.isprintable() for key in keys)
    assert request_key("k", "POST", "/", b"") == request_key("k", "POST", "/", b"")
