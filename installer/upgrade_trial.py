"""A version tried before a site is switched to it: by its own self-test, on copies."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from installer.errors import StepFailed
from installer.move import DATABASES, Move
from installer.programs import run
from installer.space import TRIAL_COPIES, size_of_files
from installer.terminal import waiting

TRY_S = 120.0
_SLOWEST_DISK = 20e6  # bytes a second


def try_offline(move: Move) -> None:
    """On copies: the databases in use are only brought to a new schema by a version that runs."""
    new = move.new
    said = new.product.version()
    if said != move.to:
        raise StepFailed(
            f"The new version calls itself {said}.",
            next_step="Nothing was changed. Obtain the bundle again from your vendor.",
        )
    tree = new.layout.version(move.to)
    if _brings_no_self_test(tree):
        new.tell(f"Version {move.to} brings no self-test: only that it runs is known.")
        return
    aside = new.layout.records / "trial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    try:
        with waiting(new.tell, "Trial"):
            answer = _self_test(move, aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    move.contracts = [str(one) for one in answer.get("contracts", ())]


def _brings_no_self_test(tree: Path) -> bool:
    python = tree / "python/bin/python3"
    look = "from importlib.util import find_spec; print(find_spec('appliance.self_test'))"
    return run([str(python), "-I", "-B", "-c", look], deadline_s=TRY_S).out == "None\n"


def _self_test(move: Move, aside: Path) -> dict[str, Any]:
    layout = move.new.layout
    options = ["--config", str(layout.config_file)]
    for name in DATABASES if not move.restores else ():
        _copy_database(layout.home / f"{name}.db", aside / f"{name}.db")
        options += [f"--{name}", str(aside / f"{name}.db")]
    size = size_of_files(layout.home / f"{name}.db" for name in DATABASES)
    command = [str(layout.version(move.to) / "python/bin/python3"), "-I", "-B"]
    ran = run(
        [*command, "-m", "appliance.self_test", *options],
        deadline_s=TRY_S + TRIAL_COPIES * size / _SLOWEST_DISK,
    )
    try:
        answer = json.loads(ran.out)
    except ValueError:
        answer = None
    if ran.code == 0 and isinstance(answer, dict):
        return answer
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        raise StepFailed(
            _UNSOUND.get(str(error.get("check")), "Its self-test failed: {}").format(
                error.get("message")
            ),
            next_step=_next_step(move, str(error.get("check"))),
        )
    said = (ran.err.strip() or f"exit code {ran.code}").splitlines()[-1]
    raise StepFailed(f"Its self-test failed: {said}", next_step=_next_step(move, ""))


_UNSOUND = {
    "import": "A part of it cannot be loaded: {}",
    "settings": "It does not understand this site's settings: {}",
    "registry": "It does not take a copy of this site's registry: {}",
    "ledger": "It does not take a copy of this site's ledger: {}",
}


def _next_step(move: Move, check: str) -> str:
    if check == "settings":
        return f"Nothing was changed. Correct {move.new.layout.config_file} and run this again."
    if move.kind == "rollback" and check in DATABASES:
        return (
            "Nothing was changed. cic-installer rollback --with-backup puts back the backup made"
            f" before {move.to} was left; what was served since is then in the kept copy alone."
        )
    return "Nothing was changed. Tell the vendor, with cic support create."


def _copy_database(there: Path, here: Path) -> None:
    source = sqlite3.connect(f"file:{there}?mode=ro", uri=True)
    with closing(source), closing(sqlite3.connect(here)) as target:
        source.backup(target)
