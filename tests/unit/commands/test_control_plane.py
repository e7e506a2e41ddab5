"""`cic control-plane …` as operators type it, on a control plane in a folder."""

from pathlib import Path

import pytest

from appliance.manifests.bundle import read_receipts
from appliance.manifests.keys import open_entitlement, open_receipt
from appliance.security.signing import PublicKey
from appliance.sync.enrolment import introduction, parse_code
from appliance.wire.command import ExitCode
from tests.fakes.command_line import Done, cic
from tests.fakes.reporting import bundle, clone, sealed
from tests.fakes.sites import Site, signing_key


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "vendor"
    assert cic("control-plane", "--home", folder, "init").code == ExitCode.OK
    return folder


def run(home: Path, *words: object) -> Done:
    return cic("--json", "control-plane", "--home", home, *words)


def enrolled(home: Path, tmp_path: Path, number: int = 1, name: str = "berlin") -> Site:
    key = signing_key(number)
    pem = tmp_path / f"{name}.pem"
    pem.write_text(key.public.pem)
    done = run(home, "enroll", name, "--public-key", pem, "--customer", "Acme", "--gpus", 4)
    assert done.code == ExitCode.OK, done.out
    return Site(key=key, appliance_id=done.json["appliance_id"])


def usage(tmp_path: Path, site: Site, count: int, name: str = "a.usage") -> Path:
    file = tmp_path / name
    file.write_bytes(bundle(site, sealed(site, count)))
    return file


def test_init_makes_a_control_plane_and_completes_it(tmp_path: Path) -> None:
    folder = tmp_path / "vendor"
    first = run(folder, "init", "--listen", "127.0.0.1:1")
    again = run(folder, "init")
    assert first.json == again.json
    assert first.json["database"] == "SQLite"
    assert (folder / "control-plane.toml").stat().st_mode & 0o777 == 0o600
    shown = run(folder, "key").json
    assert PublicKey.from_pem(shown["pem"]).key_id == first.json["key_id"] == shown["key_id"]
    assert run(folder, "operator-token").json["token"].startswith("clxop_")


@pytest.mark.parametrize("words", [("key",), ("sites", "list"), ("serve",), ("enroll", "x")])
def test_a_folder_without_one_is_said(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run(tmp_path / "nothing", *words)
    assert (done.code, done.error["code"]) == (ExitCode.CONFIGURATION, "control_plane_unready")


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file" / "vendor", "init")
    assert (done.code, done.error["code"]) == (ExitCode.FAILED, "control_plane_error")


def test_enroll_prints_a_code_that_a_site_can_read(home: Path) -> None:
    plain = cic("control-plane", "--home", home, "enroll", "berlin")
    code = parse_code(plain.out)
    assert run(home, "key").json["key_id"].startswith(code.pin)
    assert run(home, "sites", "list").json == []


def test_a_request_is_carried_in(home: Path, tmp_path: Path) -> None:
    key = signing_key(1)
    file = tmp_path / "site.request"
    file.write_bytes(
        introduction(appliance_id=f"apl_{key.key_id[:24]}", name="x", epoch=1, wall_ns=1, key=key)
    )
    done = run(home, "enroll", "berlin", "--request", file)
    assert (done.code, done.json["name"]) == (ExitCode.OK, "berlin")
    again = run(home, "enroll", "paris", "--request", file)
    assert (again.code, again.error["code"]) == (ExitCode.CONFLICT, "site_exists")
    both = run(home, "enroll", "rome", "--request", file, "--public-key", file)
    assert both.code == ExitCode.USAGE


def test_a_file_goes_in_and_a_receipt_comes_out(home: Path, tmp_path: Path) -> None:
    site = enrolled(home, tmp_path)
    file = usage(tmp_path, site, 3)
    for code in ("TENANT_UNMAPPED", "ALREADY_ACCEPTED"):
        done = run(home, "import", file)
        assert (done.code, done.json["codes"], done.json["ok"]) == (ExitCode.OK, {code: 3}, True)
    stick = tmp_path / "stick"
    stick.mkdir()
    (written,) = run(home, "export", "--to", stick).json
    carried = read_receipts(Path(written["file"]).read_bytes())
    assert carried.appliance_id == site.appliance_id
    key = PublicKey.from_pem(run(home, "key").json["pem"])
    documents = {one.kind: one.envelope for one in carried.documents}
    assert open_receipt(documents["receipt"], key).accepted_through == 3
    assert open_entitlement(documents["entitlement"], key).gpu_count == 4
    assert [file.name for file in stick.iterdir()] == [Path(written["file"]).name]


def test_what_is_refused_is_named_and_ends_with_a_failure(home: Path, tmp_path: Path) -> None:
    site = enrolled(home, tmp_path)
    copy = clone(site)
    run(home, "import", usage(tmp_path, site, 2))
    forked = usage(tmp_path, copy, 2, "b.usage")
    done = run(home, "import", forked)
    assert done.code == ExitCode.FAILED
    assert done.json["codes"] == {"FORK": 2}
    assert [one["seq"] for one in done.json["refused"]] == [1, 2]
    plain = cic("control-plane", "--home", home, "import", forked)
    assert "1-1 FORK" in plain.err
    assert run(home, "sites", "show", "berlin").json["state"] == "frozen"

    listed = run(home, "quarantine", "list", "--site", "berlin").json
    assert [(one["code"], one["seq"]) for one in listed] == [("FORK", 2), ("FORK", 1)]
    folder = tmp_path / "look"
    folder.mkdir()
    identity = next(one["id"] for one in listed if one["seq"] == 1)
    shown = run(home, "quarantine", "show", identity[:12], "--to", folder).json
    assert shown["accepted_instead"] != ""
    assert len(list(folder.iterdir())) == 4


def test_a_file_that_is_damaged_or_no_bundle_changes_nothing(home: Path, tmp_path: Path) -> None:
    site = enrolled(home, tmp_path)
    raw = usage(tmp_path, site, 3).read_bytes()
    for number, bad in enumerate((b"", b"x" * 5_000, raw[: len(raw) // 2], raw[:-1_024])):
        file = tmp_path / f"{number}.usage"
        file.write_bytes(bad)
        done = run(home, "import", file)
        assert (done.code, done.error["code"]) == (ExitCode.DAMAGED, "bad_bundle")
    assert run(home, "sites", "show", "berlin").json["accepted_through"] == 0


def test_a_medium_without_room_is_said_and_nothing_stays(home: Path, tmp_path: Path) -> None:
    enrolled(home, tmp_path)
    done = run(home, "export", "--to", "/proc/self")
    assert (done.code, done.error["code"]) == (ExitCode.FAILED, "control_plane_error")


def test_an_operator_decides_about_a_site(home: Path, tmp_path: Path) -> None:
    site = enrolled(home, tmp_path)
    assert run(home, "freeze", "berlin", "--reason", "unpaid").json["state"] == "frozen"
    assert run(home, "freeze", "berlin", "--reason", "unpaid").code == ExitCode.CONFLICT
    assert run(home, "unfreeze", "berlin", "--reason", "paid").json["state"] == "active"
    revoked = run(home, "revoke-key", "berlin", "--key-id", site.key.key_id, "--reason", "x")
    assert (revoked.json["epoch"], revoked.json["seq"]) == (1, 1)
    refused = run(home, "grant-epoch", "berlin", "--reason", "restored")
    assert refused.error["code"] == "not_possible"
    request = tmp_path / "berlin.request"
    request.write_bytes(
        introduction(
            appliance_id=site.appliance_id, name="x", epoch=2, wall_ns=1, key=signing_key(3)
        )
    )
    granted = run(home, "grant-epoch", "berlin", "--request", request, "--reason", "restored")
    assert granted.json["epoch"] == 2
    renamed = run(home, "sites", "set", "berlin", "--name", "potsdam", "--lease-days", 60)
    assert (renamed.json["name"], renamed.json["lease_days"]) == ("potsdam", 60)
    issued = run(
        home, "entitlement", "issue", "potsdam", "--models", "a, b", "--out", tmp_path / "e.json"
    ).json
    assert (issued["gpu_count"], issued["models"]) == (4, ["a", "b"])
    key = PublicKey.from_pem(run(home, "key").json["pem"])
    assert open_entitlement((tmp_path / "e.json").read_bytes(), key).models == ("a", "b")
    assert run(home, "entitlement", "show", "potsdam").json == issued
    actions = [one["action"] for one in run(home, "audit", "list").json]
    assert actions == [
        *("register", "freeze", "unfreeze", "revoke-key", "grant-epoch", "set", "entitle")
    ]
    assert run(home, "audit", "verify").json["ok"]
    missing = run(home, "sites", "show", "berlin")
    assert (missing.code, missing.error["code"]) == (ExitCode.NOT_FOUND, "unknown_site")


def test_people_get_tables(home: Path, tmp_path: Path) -> None:
    enrolled(home, tmp_path)
    for words, text in (
        (("sites", "list"), "berlin"),
        (("sites", "show", "berlin"), "customer"),
        (("audit", "list"), "register"),
        (("audit", "verify"), "entries"),
        (("entitlement", "show", "berlin"), "grace_days"),
        (("quarantine", "list"), ""),
    ):
        done = cic("control-plane", "--home", home, *words)
        assert done.code == ExitCode.OK
        assert text in done.out


def test_every_command_has_its_help() -> None:
    listed = cic("control-plane", "--help").out
    for name in ("init", "serve", "enroll", "import", "export", "sites", "quarantine", "audit"):
        assert f"\n  {name} " in listed
        assert cic("control-plane", name, "--help").code == ExitCode.OK
