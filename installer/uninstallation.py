"""`uninstall`: removes what the manifest names; with --purge also data, settings and accounts."""

from __future__ import annotations

import json
import shutil

from installer.errors import NotInstalled
from installer.installation import by, forget, require_root
from installer.layout import Layout
from installer.looking import installed_version
from installer.records import Journal, Manifest, add_history, locked
from installer.removal import removable, remove
from installer.terminal import Teller, confirm
from installer.work import reload_units, services_of

KEPT = (
    "Settings, data and accounts are kept: a later install finds them. To remove them too:"
    " uninstall --purge"
)


def uninstall(
    layout: Layout, tell: Teller, *, purge: bool, yes: bool, dry_run: bool, as_json: bool
) -> str:
    """What is printed on standard output. Raises InstallerError."""
    require_root(layout, changes=not dry_run)
    if not layout.records.is_dir():
        raise NotInstalled(
            f"Nothing of the appliance was installed here: {layout.records} is not there.",
            next_step="Name another root with --prefix, where it was installed below one.",
        )
    if dry_run:
        return _shown(Manifest(layout), purge=purge, as_json=as_json)
    question = "Remove the appliance, and keep its data?"
    if purge:
        question = "Remove the appliance with ALL data: keys, ledger, models, settings?"
    confirm(question, yes=yes)
    with locked(layout):
        notes = _uninstall(layout, tell, purge=purge)
    if as_json:
        return json.dumps({"removed": True, "purged": purge, "kept": notes}, indent=2)
    lines = ["The appliance was removed.", *(f"  {note}" for note in notes)]
    return "\n".join(lines if purge else [*lines, KEPT])


def _shown(manifest: Manifest, *, purge: bool, as_json: bool) -> str:
    goes = removable(manifest, purge=purge)
    stays = sorted(set(manifest.made) - set(goes))
    if as_json:
        return json.dumps({"removes": goes, "keeps": stays}, indent=2)
    lines = ["These go:", *(f"  {name}" for name in goes)]
    return "\n".join([*lines, "These stay:", *(f"  {name}" for name in stays)] if stays else lines)


def _uninstall(layout: Layout, tell: Teller, *, purge: bool) -> list[str]:
    journal, manifest = Journal(layout.journal), Manifest(layout)
    unfinished = journal.unfinished()
    if unfinished is None or unfinished.kind != "uninstall":
        if unfinished is not None:
            # All that it made is in the manifest, and goes with the rest.
            journal.end("undone")
        journal.begin("uninstall", {"purge": purge, "version": installed_version(layout)})
    tell.line("Stopping the services")
    stop_all(layout, manifest)
    tell.line("Removing what was made")
    version = manifest.version
    for left in ("unpacked", "trial"):
        shutil.rmtree(layout.records / left, ignore_errors=True)
    notes = remove(layout, manifest, removable(manifest, purge=purge), purge=purge)
    reload_units(layout)
    if purge and not notes:
        forget(layout)
        return []
    manifest.version = ""
    manifest.steps.clear()
    manifest.save()
    add_history(
        layout, {"operation": "uninstall", "from": version, "outcome": "finished", "by": by()}
    )
    journal.end("finished")
    return notes


def stop_all(layout: Layout, manifest: Manifest) -> None:
    """Every unit of this installation, where systemd runs."""
    folder = layout.inside(layout.units)
    units = tuple(
        name.removeprefix(folder + "/")
        for name in manifest.made
        if name.startswith(folder + "/") and "/" not in name.removeprefix(folder + "/")
    )
    services_of(layout, units, with_agent=True).stop()
