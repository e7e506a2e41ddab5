"""A real installation below a root: the real `cic`, a real site, a real completion."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

from tests.fakes.stand_in_bundle import make_bundle, make_root, snapshot
from tests.fakes.tiny_gguf import write_tiny_gguf
from tests.integration.installer.conftest import Installation

Answers = Callable[[str], str]


def test_a_site_is_installed_with_a_model_and_a_key_and_removed_without_a_trace(
    installation: Installation, answers: Answers, tmp_path: Path
) -> None:
    before = snapshot(installation.root)
    model = write_tiny_gguf(tmp_path / "tiny.gguf")
    key_file = tmp_path / "key"
    told = answers(
        f'[site]\nname = "here"\n[model]\nfile = "{model}"\n[tenant]\nname = "acme"\n'
        f'key_file = "{key_file}"\n'
    )
    done = installation.run("--answers", told, "--json")
    assert done.code == 0, done.err
    card = done.json
    assert card["models"] == ["tiny"]
    assert card["version"] == "0.1.0"
    assert len(card["ca_fingerprint"]) == 64
    assert card["endpoint"].startswith("http://127.0.0.1:")
    assert card["key"] == ""  # what is printed is often kept
    secret = key_file.read_text().strip().encode()
    assert secret.startswith(b"clsk_live_")
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    # The secret stands nowhere below the root.
    files = [path for path in installation.root.rglob("*") if path.is_file()]
    assert not [path for path in files if secret in path.read_bytes()]
    assert str((installation.root / "opt/crosslogic/current").readlink()) == "0.1.0"
    assert str((installation.root / "usr/bin/cic").readlink()) == "/opt/crosslogic/current/bin/cic"
    config = installation.root / "etc/crosslogic/config.toml"
    assert stat.S_IMODE(config.stat().st_mode) == 0o640
    assert 'name = "here"' in config.read_text()
    _check_the_manifest(installation)

    kept = installation.run("uninstall", "--json")
    assert kept.code == 0, kept.err
    assert (installation.root / "var/lib/crosslogic/registry.db").exists()
    assert not (installation.root / "opt/crosslogic").exists()
    purged = installation.run("uninstall", "--purge")
    assert purged.code == 0, purged.err
    assert snapshot(installation.root) == before


def _check_the_manifest(installation: Installation) -> None:
    """Every path below the root that was made is in it, and every file is as it says."""
    from hashlib import sha256  # noqa: PLC0415

    manifest = installation.manifest
    tree = installation.root / "opt/crosslogic/0.1.0"
    listed = manifest["trees"]["0.1.0"]
    assert set(listed) == {str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_file()}
    for name, (digest, mode) in listed.items():
        assert sha256((tree / name).read_bytes()).hexdigest() == digest
        assert mode == f"{stat.S_IMODE((tree / name).stat().st_mode):04o}"
    for name, made in manifest["made"].items():
        path = installation.root / name.lstrip("/")
        assert path.exists() or path.is_symlink(), name
        if made["kind"] in {"file", "settings"}:
            assert sha256(path.read_bytes()).hexdigest() == made["sha256"]
            assert made["owner"]


def test_a_dry_run_and_a_refusal_change_nothing(
    installation: Installation, answers: Answers
) -> None:
    before = snapshot(installation.root)
    plan = installation.run("--dry-run", "--json", "--answers", answers(""))
    assert plan.code == 0
    assert [step["name"] for step in plan.json["steps"]][:3] == ["accounts", "tree", "folders"]
    assert all(step["does"] and step["undo"] for step in plan.json["steps"])
    wrong = installation.run("--answers", answers("[sight]\nname = 1\n"), "--json")
    assert wrong.code == 2
    assert wrong.json["error"]["code"] == "bad_answers"
    assert "site.name" in wrong.json["error"]["message"]
    assert installation.run("uninstall").code == 1
    assert installation.run("--no-such-option").code == 2
    assert snapshot(installation.root) == before


def test_the_same_again_completes_and_changes_nothing_else(
    installation: Installation, answers: Answers
) -> None:
    told = answers('start = false\n[site]\nname = "first"\n')
    assert installation.run("--answers", told).code == 0
    config = installation.root / "etc/crosslogic/config.toml"
    config.write_text(config.read_text() + "\n# by hand\n")
    (installation.root / "usr/bin/cic").unlink()
    before = snapshot(installation.root / "var/lib/crosslogic")
    again = installation.run("--json")
    assert again.code == 0, again.err
    assert "# by hand" in config.read_text()
    assert snapshot(installation.root / "var/lib/crosslogic") == before


def test_what_is_not_ours_is_neither_taken_nor_removed(
    installation: Installation, answers: Answers
) -> None:
    (installation.root / "usr/bin/cic").write_text("somebody else's\n")
    told = answers("start = false")
    refused = installation.run("--answers", told, "--json")
    assert refused.code == 1
    assert refused.json["error"]["code"] == "step_failed"
    assert "/usr/bin/cic" in refused.json["error"]["message"]
    assert installation.run("install", "--undo").code == 0
    assert (installation.root / "usr/bin/cic").read_text() == "somebody else's\n"
    (installation.root / "usr/bin/cic").unlink()
    assert snapshot(installation.root) == snapshot(make_root(installation.root.parent / "fresh"))


def test_files_that_somebody_changed_stay_without_purge(
    installation: Installation, answers: Answers
) -> None:
    assert installation.run("--answers", answers("start = false")).code == 0
    changed = installation.root / "opt/crosslogic/0.1.0/bin/cic"
    changed.write_text("#!/bin/sh\necho mine\n")
    done = installation.run("uninstall", "--json")
    assert done.code == 0
    assert any("bin/cic" in note for note in done.json["kept"])
    assert changed.exists()
    assert not (installation.root / "opt/crosslogic/0.1.0/python").exists()


def test_another_version_is_not_installed_over(
    installation: Installation, answers: Answers, tmp_path: Path
) -> None:
    assert installation.run("--answers", answers("start = false")).code == 0
    other = make_bundle(tmp_path, "0.2.0")
    refused = installation.run("--json", program=other / "install.sh")
    assert refused.json["error"]["code"] == "other_version"
    assert "upgrade" in refused.json["error"]["next_step"]


def test_two_installers_at_a_time_are_one_too_many(
    installation: Installation, answers: Answers
) -> None:
    import fcntl  # noqa: PLC0415

    installation.records.mkdir(mode=0o700)
    with (installation.records / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("4711")
        held.flush()
        refused = installation.run("--answers", answers("start = false"), "--json")
    assert refused.code == 5
    assert "4711" in refused.json["error"]["message"]


def test_units_are_laid_down_and_enabled_in_a_root_without_systemd(
    answers: Answers, tmp_path: Path
) -> None:
    one = Installation(make_root(tmp_path / "r"), make_bundle(tmp_path, units=True))
    before = snapshot(one.root)
    # `start` would enable them; the stand-in's own units are never started.
    assert one.run("--answers", answers('[tenant]\nname = ""\n')).code == 0
    link = one.root / "etc/systemd/system/multi-user.target.wants/crosslogic-gateway.service"
    assert str(link.readlink()) == "/usr/lib/systemd/system/crosslogic-gateway.service"
    assert (one.root / "usr/lib/systemd/system/crosslogic-agent.service").is_file()
    assert one.run("uninstall", "--purge").code == 0
    assert snapshot(one.root) == before


def test_answers_come_from_standard_input_and_the_example_is_one(tmp_path: Path) -> None:
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    def run(*words: str, given: str = "") -> str:
        return subprocess.run(
            [sys.executable, "-m", "installer", *words],
            input=given, capture_output=True, text=True, check=True, timeout=30,
            env={**os.environ, "CROSSLOGIC_BUNDLE": str(make_bundle(tmp_path))} if given else None,
        ).stdout  # fmt: skip

    example = run("install", "--print-answers")
    plan = json.loads(
        run("--answers", "-", "--dry-run", "--json", "--prefix", str(tmp_path), given=example)
    )
    assert plan["version"] == "0.1.0"
