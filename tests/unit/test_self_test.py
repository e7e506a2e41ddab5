"""A version's own look at itself: what the installer of the version before relies on."""

import json
import sqlite3
from pathlib import Path

import pytest

from appliance import self_test
from appliance.self_test import Unsound, import_all, main
from appliance.storage.database import Migration, Schema


def test_this_version_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[site]\nname = "here"\n')
    copies = [f"--{name}={tmp_path / name}.db" for name in ("registry", "ledger")]
    assert main(["--config", str(config), *copies]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["modules"] > 500
    assert answer["contracts"] == []
    assert (tmp_path / "ledger.db").exists()


def _failure(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    assert main(words) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    return error["check"], error["message"]


def test_each_failure_names_its_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "PACKAGES", ())
    config = tmp_path / "config.toml"
    config.write_text('[sight]\nname = "here"\n')
    check, message = _failure(capsys, "--config", str(config))
    assert check == "settings"
    assert "sight" in message
    config.write_text('[branding]\nfile = "/nowhere"\n')
    assert _failure(capsys, "--config", str(config))[0] == "settings"
    (tmp_path / "r.db").write_text("this is no database, however long it may be" * 40)
    assert _failure(capsys, "--registry", str(tmp_path / "r.db"))[0] == "registry"
    newer = tmp_path / "l.db"
    with sqlite3.connect(newer) as database:
        database.execute("CREATE TABLE _migrations (name TEXT PRIMARY KEY, expands INT)")
        database.execute("INSERT INTO _migrations VALUES ('a-later-step', 0)")
    database.close()
    check, message = _failure(capsys, "--ledger", str(newer))
    assert check == "ledger"
    assert "newer version" in message


def test_a_module_that_cannot_be_loaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "broken_release"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("raise SystemExit('never imported')")
    (package / "deep/well.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_all(["broken_release"]) == 2
    (package / "deep/ill.py").write_text("raise SystemExit('no')")
    with pytest.raises(Unsound, match=r"broken_release\.deep\.ill: SystemExit: no"):
        import_all(["broken_release"])


def test_steps_that_an_earlier_version_cannot_go_on_after_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(_: Schema) -> None:
        pass

    steps = (Migration("one", nothing), Migration("two", nothing, expands=False))
    monkeypatch.setattr(self_test, "PACKAGES", ())
    monkeypatch.setitem(self_test.SCHEMAS, "ledger", steps)
    words = ["--ledger", str(tmp_path / "l.db")]
    for contracts in (["two"], []):  # the second time nothing is new
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out)["contracts"] == contracts
