"""New versions that are broken in one way each: taken back, with the true reason in the history.

Some in the ordinary run; INSTALLER_KILLS=all tries every one.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from installer import services, upgrade_steps
from installer.errors import UpgradeFailed
from installer.layout import Layout
from installer.move import Move
from installer.product import wait_until
from installer.terminal import Teller
from installer.upgrade import Wanted, upgrade
from installer.work import Work
from tests.fakes.stand_in_bundle import BROKEN_SERVE, make_bundle, make_root
from tests.fakes.tiny_gguf import write_tiny_gguf
from tests.integration.installer.conftest import Installation

LATER = pytest.mark.skipif(
    os.environ.get("INSTALLER_KILLS") != "all", reason="INSTALLER_KILLS=all tries every one"
)
# A part that no start of the gateway needs.
NO_IMPORT = "import sys\n\nsys.modules['agent.main'] = None\n"
HANGING = """\
import sys
import time

if "serve" in sys.orig_argv:
    time.sleep(600)
"""
OTHER_NAME = """\
import os
import sys

if "--version" in sys.orig_argv:
    print("cic 9.9.9", flush=True)
    os._exit(0)
"""
# Only what serves calls itself otherwise: its offline trial finds nothing.
SERVES_AS_ANOTHER = """\
import importlib.metadata
import sys

if "serve" in sys.orig_argv:
    importlib.metadata.version = lambda _: "9.9.9"
"""
SILENT = """\
import sys

if "chat" in sys.orig_argv:
    sys.exit("no engine takes this")
"""
BEFORE_THE_SWITCH = {
    "a part cannot be loaded": (NO_IMPORT, "try: A part of it cannot be loaded: agent.main"),
    "another name": (OTHER_NAME, "try: The new version calls itself 9.9.9."),
}
AFTER_IT = {
    "no start": (
        BROKEN_SERVE,
        "restart: cic serve ended with exit code 1: SystemExit: this version",
    ),
    "another version serves": (SERVES_AS_ANOTHER, "prove: Version 9.9.9 answers."),
    "it hangs": (HANGING, "restart: The appliance was started and did not answer within 3 s."),
}


def _upgraded(site: Installation, bundle: Path, tmp_path: Path) -> UpgradeFailed:
    wanted = Wanted(Layout(site.root), tmp_path, bundle=str(bundle), yes=True)
    with pytest.raises(UpgradeFailed) as failed:
        upgrade(wanted, Teller(quiet=True))
    assert site.current == "0.1.0"
    assert site.manifest["version"] == "0.1.0"
    return failed.value


@pytest.mark.parametrize("kind", BEFORE_THE_SWITCH)
def test_what_its_trial_finds_is_never_switched_to(
    site: Installation, tmp_path: Path, kind: str
) -> None:
    customize, why = BEFORE_THE_SWITCH[kind]
    failed = _upgraded(site, make_bundle(tmp_path, "0.2.0", customize=customize), tmp_path)
    assert "Version 0.1.0 serves as before." in failed.message
    (entry,) = site.history[1:]
    assert entry["outcome"] == "failed"
    assert entry["why"].startswith(why), entry
    assert Path(entry["backup"]).exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "kind", [name if name == "no start" else pytest.param(name, marks=LATER) for name in AFTER_IT]
)
def test_what_only_its_start_shows_is_taken_back(
    site: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(services, "START_S", 3.0)
    customize, why = AFTER_IT[kind]
    failed = _upgraded(site, make_bundle(tmp_path, "0.2.0", customize=customize), tmp_path)
    assert "Version 0.1.0 serves again" in failed.message
    (entry,) = site.history[1:]
    assert entry["outcome"] == "rolled back"
    assert entry["why"].startswith(why), entry


@LATER
def test_settings_that_it_does_not_understand_are_named(
    site: Installation, newer: Path, tmp_path: Path
) -> None:
    config = site.root / "etc/crosslogic/config.toml"
    # A gateway that runs has read them long ago; the next start would not.
    failed: list[UpgradeFailed] = []
    works = upgrade_steps.try_out

    def change(move: Move) -> None:
        config.write_text(config.read_text() + "[sight]\nname = 1\n")
        works(move)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(upgrade_steps.ACTS, "try", change)  # type: ignore[arg-type]
        failed.append(_upgraded(site, newer, tmp_path))
    assert "does not understand this site's settings" in failed[0].message
    assert "sight" in failed[0].message
    assert str(config) in failed[0].next_step


@LATER
@pytest.mark.timeout(60)
def test_a_model_that_no_longer_answers_takes_it_back(
    installation: Installation,
    answers: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upgrade_steps, "PROVE_S", 1.0)
    model = write_tiny_gguf(tmp_path / "tiny.gguf")
    told = answers(f'[model]\nfile = "{model}"\n')
    assert installation.run("--answers", told).code == 0
    bundle = make_bundle(tmp_path, "0.2.0", customize=SILENT)
    asks = upgrade_steps.answering

    def until_it_answers(work: Work) -> str:
        """A gateway that was started a moment ago has its engines a little later."""
        wait_until(lambda: bool(asks(work)), deadline_s=30, clock=time.monotonic, sleep=time.sleep)
        return asks(work)

    monkeypatch.setattr(upgrade_steps, "answering", until_it_answers)
    failed = _upgraded(installation, bundle, tmp_path)
    assert "tiny answered before and does not now" in failed.message
    assert "no engine takes this" in installation.history[-1]["why"]
    assert installation.history[-1]["outcome"] == "rolled back"


@pytest.mark.timeout(60)
def test_a_version_that_no_longer_starts_is_left_without_a_backup(
    tmp_path: Path, newer: Path, answers: Callable[[str], str]
) -> None:
    broken = make_bundle(tmp_path, customize=BROKEN_SERVE)
    site = Installation(make_root(tmp_path / "r"), broken)
    assert site.run("--answers", answers("start = false")).code == 0
    refused = site.installed("upgrade", str(newer), "--json")
    assert refused.code == 1
    assert "this version does not serve" in refused.json["error"]["message"]
    assert "upgrade --no-backup" in refused.json["error"]["next_step"]
    newer.chmod(0o777)  # others could change it while it is read: a copy is checked and taken
    done = site.installed("upgrade", str(newer), "--no-backup")
    newer.chmod(0o755)
    assert done.code == 0, done
    assert "others could change it meanwhile" in done.err
    assert (site.current, "backup" in site.history[-1]) == ("0.2.0", False)
    assert not (site.records / "unpacked").exists()
