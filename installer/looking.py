"""Looks at what is there: the facts that a plan is made of. Changes nothing."""

from __future__ import annotations

import os
from dataclasses import replace

from installer.answers import Answers
from installer.bundle import Bundle, beside
from installer.layout import AGENT_ACCOUNT, GATEWAY_ACCOUNT, Layout
from installer.plan import Found
from installer.programs import account_of
from installer.records import Journal, Manifest
from installer.services import systemd_runs
from installer.work import units_in


def completed(answers: Answers, bundle: Bundle) -> Answers:
    """Answers with what lies beside the bundle, where nothing was named."""
    engine, model = answers.engine_llamacpp, answers.model_file
    if answers.role == "all" and not engine:
        near = beside(bundle, "crosslogic-llamacpp-*-linux-x86_64")
        if near is not None and (near / "tree/llamacpp").is_dir():
            engine = str(near)
    if answers.role == "all" and not model:
        pack = beside(bundle, "*.modelpack")
        model = str(pack) if pack is not None else ""
    return replace(answers, engine_llamacpp=engine, model_file=model)


def look(layout: Layout, answers: Answers, bundle: Bundle, manifest: Manifest) -> Found:
    units = units_in(bundle.tree / "systemd", answers.role)
    done = dict(manifest.steps)
    unfinished = Journal(layout.journal).unfinished()
    if unfinished is not None and unfinished.kind == "install":
        done.pop("key", None)  # its secret may have been shown to nobody
    names = (GATEWAY_ACCOUNT,) if answers.role == "gateway" else (GATEWAY_ACCOUNT, AGENT_ACCOUNT)
    systemd = bool(units) and systemd_runs(layout)
    return Found(
        version=bundle.version,
        root=str(layout.root),
        systemd=systemd,
        units=bool(units),
        accounts=all(account_of(name) is not None for name in names),
        tree=layout.version(bundle.version).is_dir(),
        config=layout.config_file.exists(),
        site=(layout.home / "registry.db").exists(),
        runs=systemd and (layout.run / "endpoint").exists(),
        engine=answers.engine_llamacpp,
        model=answers.model_file,
        done=done,
    )


def installed_version(layout: Layout) -> str | None:
    """What `current` points to; None where nothing is installed."""
    try:
        target = os.readlink(layout.current)  # noqa: PTH115 (the name alone is asked for)
    except OSError:
        return None
    return target.rpartition("/")[2]
