"""The first model: a signed pack, or weights, brought to where the services can read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from installer.errors import StepFailed
from installer.files import copy_tree, sync_folder
from installer.layout import GATEWAY_ACCOUNT
from installer.work import Work, account_in

PACK = ".modelpack"
_HIDDEN = ("/root", "/home", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 (named, not used)


def bring_model(work: Work) -> str:
    """Imports a pack, or copies weights; deploys it and waits. The deployment's name."""
    source = Path(work.answers.model_file)
    if not source.exists():
        raise StepFailed(
            f"The model {source} is not there.",
            next_step="Correct model.file, and run this again: it goes on where it stopped.",
        )
    if source.suffix == PACK:
        model = _import_pack(work, source)
    else:
        model = str(_placed(work, source, work.layout.home / "models" / "own"))
    name = work.answers.model_name or (
        model.partition(":")[0] if source.suffix == PACK else source.name.removesuffix(".gguf")
    )
    words = ["deployment", "create", "--name", name, "--engine", work.answers.model_engine]
    if work.answers.model_gpus:
        words += ["--gpus", str(work.answers.model_gpus)]
    work.tell(f"deploying {name}")
    work.product.makes(*words, "--model", model)
    _wait(work, name)
    return name


def _import_pack(work: Work, pack: Path) -> str:
    answers = work.answers
    words = ["model", "import"]
    words += ["--accept-licence"] if answers.model_accept_licence else []
    words += ["--publisher", answers.model_publisher] if answers.model_publisher else []
    words += ["--name", answers.model_name] if answers.model_name else []
    staged = pack if _readable(pack) else _placed(work, pack, work.layout.home / "models/incoming")
    work.tell(f"importing {pack.name}")
    try:
        made = work.product.makes(*words, str(staged))
    finally:
        if staged != pack:
            staged.unlink(missing_ok=True)
    return str(made["name"]) if isinstance(made, dict) else (answers.model_name or pack.stem)


def _readable(path: Path) -> bool:
    """Whether the services can read it where it lies: hardening hides some folders from them."""
    real = path.resolve()
    if any(real.is_relative_to(hidden) for hidden in _HIDDEN):
        return False
    folders_open = all(parent.stat().st_mode & 0o001 for parent in real.parents)
    return folders_open and bool(real.stat().st_mode & 0o004)


def _placed(work: Work, source: Path, folder: Path) -> Path:
    """A copy below the site's own folder. One that is there with that name and size is complete."""
    account = account_in(work.layout, GATEWAY_ACCOUNT)
    target = folder / source.name
    folder.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        work.tell(f"copying {source.name}")
        if source.is_dir():
            for _ in copy_tree(source, target):
                pass
        else:
            aside = target.with_name(target.name + ".partial")
            shutil.copyfile(source, aside)
            with aside.open("rb") as copied:
                os.fsync(copied.fileno())
            aside.rename(target)
        sync_folder(folder)
    if account is not None:
        for path in (folder, target, *target.rglob("*")):
            os.chown(path, account.uid, account.gid)
    return target


def _wait(work: Work, name: str) -> None:
    """Until a replica answers. Raises StepFailed with the site's own reason."""
    import time  # noqa: PLC0415 (time is asked for here alone)

    ends_at = time.monotonic() + 1800
    while time.monotonic() < ends_at:
        shown = work.product.ask("deployment", "show", name)
        if shown["state"] == "ready":
            return
        if shown["state"] in {"failed", "suspended"}:
            raise StepFailed(
                f"The model {name} does not start: {shown['reason'] or shown['state']}",
                next_step=f"cic deployment explain {name}; cic deployment logs {name}",
            )
        time.sleep(0.3)
    raise StepFailed(
        f"The model {name} was not ready within half an hour.",
        next_step=f"cic deployment show {name} tells how far it is; then run this again.",
    )
