"""`cic manifest` and `cic usage prove`, on a running site and on a stopped one."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.storage.database import connect
from appliance.wire.command import ExitCode
from tests.fakes.admin_site import AdminSite, served
from tests.fakes.command_line import Done, cic
from tests.fakes.sealed_site import SealedSite, sealed_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AdminSite]:
    with served(tmp_path / "home") as site:
        yield site


@pytest.fixture
def stopped(tmp_path: Path) -> SealedSite:
    return sealed_site(tmp_path, manifests=3)


def run(site: AdminSite | SealedSite, *arguments: object) -> Done:
    return cic("--home", site.home.config, *arguments)


def test_seal_says_what_it_made_and_that_nothing_is_new(site: AdminSite) -> None:
    site.manifests.site.record(3)
    made = run(site, "--json", "manifest", "seal").json
    assert (made["sealed"], made["seq"], made["records"]) == (1, 1, 3)
    assert made["sha256"] == site.manifests.site.manifest(1).row.sha256
    assert [row["seq"] for row in made["manifests"]] == [1]
    done = run(site, "manifest", "seal")
    assert (done.code, done.out) == (ExitCode.OK, "Nothing is new; the newest manifest is 1-1.\n")
    site.manifests.site.record(1)
    assert "totals.requests" in run(site, "manifest", "seal").out


def test_a_site_without_manifests_says_so(site: AdminSite) -> None:
    assert run(site, "manifest", "seal").out == "Nothing is new.\n"
    done = run(site, "manifest", "list")
    assert (done.out, done.err) == ("", "Nothing was sealed yet.\n")
    done = run(site, "--json", "manifest", "show", "1")
    assert (done.code, done.error["code"]) == (ExitCode.NOT_FOUND, "no_such_manifest")


def test_a_list_begins_where_one_asks(stopped: SealedSite) -> None:
    rows = run(stopped, "--json", "manifest", "list").json
    assert [(row["epoch"], row["seq"], row["state"]) for row in rows] == [
        (1, number, "sealed") for number in (1, 2, 3)
    ]
    for ref in ("2", "1-2", "1.2"):
        rows = run(stopped, "--json", "manifest", "list", "--since", ref).json
        assert [row["seq"] for row in rows] == [3]
    assert run(stopped, "manifest", "list", "--since", "x-y").code == ExitCode.USAGE
    assert "1-3" in run(stopped, "manifest", "list").out


@pytest.mark.parametrize("ref", ["0", "4", "2-1", "x", "1-", "9" * 30, "-1-1"])
def test_a_number_that_is_none_is_refused(stopped: SealedSite, ref: str) -> None:
    done = run(stopped, "--json", "manifest", "show", "--", ref)
    assert (done.code, done.error["code"]) == (ExitCode.NOT_FOUND, "no_such_manifest")


def test_what_is_shown_is_what_was_signed(stopped: SealedSite) -> None:
    stored = stopped.manifest(2)
    assert run(stopped, "manifest", "show", "2", "--raw").out.encode() == stored.envelope
    assert run(stopped, "manifest", "show", "2", "--lines").out.encode() == stored.lines
    shown = run(stopped, "--json", "manifest", "show", "1-2").json
    assert shown["envelope"].encode() == stored.envelope
    assert shown["header"]["seq"] == 2
    people = run(stopped, "manifest", "show", "2").out
    assert "lines_root" in people
    assert "globex" in people


def test_a_tenants_view_is_verified_as_it_is(stopped: SealedSite, tmp_path: Path) -> None:
    raw, lines, key = tmp_path / "m.dsse.json", tmp_path / "m.ndjson", tmp_path / "site.pem"
    raw.write_text(run(stopped, "manifest", "show", "2", "--raw").out)
    lines.write_text(run(stopped, "manifest", "show", "2", "--lines", "--tenant", "acme").out)
    key.write_text(run(stopped, "manifest", "public-key", "2").out)
    assert "globex" not in lines.read_text()
    assert '{"redacted":"' in lines.read_text()
    people = run(stopped, "manifest", "show", "2", "--tenant", "acme").out
    assert "1 lines of others are hidden." in people
    assert "globex" not in people
    done = run(stopped, "verify", raw, "--key", key, "--lines", lines)
    assert done.code == ExitCode.OK, done
    lines.write_text(lines.read_text().replace("acme", "acne"))
    assert run(stopped, "verify", raw, "--key", key, "--lines", lines).code == ExitCode.DAMAGED


def test_verify_has_its_exit_code(stopped: SealedSite) -> None:
    done = run(stopped, "--json", "manifest", "verify")
    assert (done.code, done.json["ok"], done.json["checked"]) == (ExitCode.OK, True, 3)
    with stopped.writing() as connection:
        connection.execute("UPDATE records SET output_tokens = 9 WHERE seq = 3")
    done = run(stopped, "--json", "manifest", "verify")
    assert (done.code, done.json["ok"]) == (ExitCode.DAMAGED, False)
    assert len(done.json["problems"]) == 1


def test_a_running_site_is_verified_with_its_progress(site: AdminSite) -> None:
    for _ in range(3):
        site.manifests.site.record(2)
        site.manifests.site.seal()
    done = run(site, "--json", "manifest", "verify")
    assert (done.code, done.json["ok"], done.json["checked"]) == (ExitCode.OK, True, 3)
    with site.manifests.site.writing() as connection:
        connection.execute("UPDATE records SET output_tokens = 9 WHERE seq = 3")
    done = run(site, "manifest", "verify")
    assert done.code == ExitCode.DAMAGED
    assert "Manifest 1-2: the ledger's records 3 to 4 are not those that were sealed." in done.out


def test_the_key_is_printed_as_pem_and_rotated_on_demand(site: AdminSite) -> None:
    pem = run(site, "manifest", "public-key").out
    assert pem == site.manifests.site.identity.key.public.pem
    shown = run(site, "--json", "manifest", "public-key").json
    assert (shown["pem"], shown["since"]) == (pem, "1-1")
    assert shown["appliance_id"] == site.manifests.site.appliance_id
    done = run(site, "manifest", "key-rotate")
    assert (done.code, site.manifests.rotated) == (ExitCode.OK, 1)
    assert pem in done.out


def test_a_proof_is_one_line_of_json_or_a_new_file(stopped: SealedSite, tmp_path: Path) -> None:
    record = f"rec_{2:028x}"
    printed = run(stopped, "usage", "prove", record).out
    assert json.loads(printed)["record_id"] == record
    assert run(stopped, "--json", "usage", "prove", f"req_{2:028x}").out == printed
    out = tmp_path / "proof.json"
    told = run(stopped, "--json", "usage", "prove", record, "--out", out).json
    assert (told["record_id"], told["bytes"]) == (record, len(printed))
    assert out.read_text() == printed
    assert run(stopped, "usage", "prove", record, "--out", out).code == ExitCode.CONFLICT
    key = tmp_path / "site.pem"
    key.write_text(run(stopped, "manifest", "public-key").out)
    assert run(stopped, "verify", out, "--key", key).code == ExitCode.OK


def test_a_proof_is_refused_for_what_is_not_there_or_not_sealed(site: AdminSite) -> None:
    done = run(site, "--json", "usage", "prove", "nobody")
    assert (done.code, done.error["code"]) == (ExitCode.NOT_FOUND, "no_such_record")
    site.manifests.site.record(1)
    done = run(site, "--json", "usage", "prove", f"rec_{1:028x}")
    assert (done.code, done.error["code"]) == (ExitCode.CONFLICT, "not_sealed_yet")


def test_a_home_of_before_manifests_is_told_what_to_do(stopped: SealedSite) -> None:
    with contextlib.closing(connect(stopped.home.ledger_file)) as connection:
        connection.execute("DROP TABLE manifests")
    done = run(stopped, "--json", "manifest", "list")
    assert (done.code, done.error["code"]) == (ExitCode.CONFIGURATION, "no_manifests")
    assert "cic --home" in done.error["next_step"]
    with contextlib.suppress(sqlite3.Error):
        stopped.home.ledger_file.unlink()
    assert run(stopped, "--json", "manifest", "list").error["code"] == "no_manifests"


def test_what_changes_something_wants_a_running_site(stopped: SealedSite) -> None:
    for command in ("seal", "key-rotate"):
        done = run(stopped, "--json", "manifest", command)
        assert (done.code, done.error["code"]) == (ExitCode.UNREACHABLE, "not_running")
