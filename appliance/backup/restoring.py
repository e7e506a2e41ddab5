"""Putting a backup back: into a new home, or over a site that does not run.

Everything is unpacked and tried beside the home first. Then a plan of renames is written down and
carried out; whoever finds the plan (the next `restore` or `serve`) carries out the rest of it. So
the home is at any moment what it was, or what was restored, or on a way that only leads forward.
"""

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from appliance.backup.container import Opening
from appliance.backup.errors import BackupError, HomeInUse
from appliance.backup.trial import Tell, Tried, examine, require_sound, unpacked
from appliance.domain.clock import Clock
from appliance.lock import held
from appliance.wire.home import Home

PLAN: Final = "restore-plan.json"
# Files of a home that a backup replaces, and those that would not fit what it brings.
_REPLACED: Final = ("registry.db", "ledger.db", "manifest-head.json", "secrets")
_LEFT_OVER: Final = ("registry.db-wal", "registry.db-shm", "ledger.db-wal", "ledger.db-shm")


class Move(msgspec.Struct, frozen=True):
    source: str
    target: str


class Plan(msgspec.Struct, frozen=True):
    moves: tuple[Move, ...]
    aside: str  # where the new files wait; gone when all is done


@dataclass(frozen=True, slots=True)
class Restored:
    tried: Tried
    before: Path | None  # where the site that was there lies now


def restore(
    path: Path,
    home: Home,
    opening: Opening,
    clock: Clock,
    *,
    replace: bool,
    tell: Tell = lambda _step: None,
) -> Restored:
    """Raises HomeInUse where a site lies and `replace` was not said, or where one runs."""
    there = home.registry_file.exists() or home.config_file.exists()
    if there and not replace:
        raise HomeInUse(
            f"There is a site in {home.state}.",
            next_step="Name another --home, or say --replace: what is there is kept beside.",
        )
    with held(home.lock_file):
        finish(home)
        with unpacked(path, opening, home.state, tell) as (head, index, fresh):
            tried = examine(head, index, fresh, tell)
            require_sound(tried)
            plan, before = _plan(home, fresh, clock, there=there)
            _write_plan(home, plan)
            # From here on it can only go forward.
            tell("putting it in place")
            finish(home)
    return Restored(tried, before)


def finish(home: Home) -> bool:
    """Carry out what is left of a restore that was cut off. Whether there was one."""
    file = home.state / PLAN
    try:
        plan = msgspec.json.decode(file.read_bytes(), type=Plan)
    except FileNotFoundError:
        return False
    except (OSError, msgspec.DecodeError) as error:
        raise BackupError(
            f"{file} cannot be read: {error}.",
            next_step="It says how a restore goes on. Restore again with --replace.",
        ) from error
    for move in plan.moves:
        source, target = Path(move.source), Path(move.target)
        if os.path.lexists(source):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            source.rename(target)
    for folder in {Path(move.target).parent for move in plan.moves}:
        _sync(folder)
    shutil.rmtree(plan.aside, ignore_errors=True)
    file.unlink()
    _sync(home.state)
    return True


def _plan(home: Home, fresh: Home, clock: Clock, *, there: bool) -> tuple[Plan, Path | None]:
    # Out of the folder that goes away when the trial ends, into one that stays until it is done.
    aside = home.state / f"{fresh.state.name}-kept"
    fresh.state.rename(aside)
    fresh.state.mkdir(mode=0o700)
    moves: list[Move] = []
    before: Path | None = None
    if there:
        stamp = datetime.fromtimestamp(clock.wall_ns() / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
        before = home.state / f"before-restore-{stamp}"
        before.mkdir(mode=0o700)
        moves += [
            _move(home.state / name, before / name)
            for name in (*_REPLACED, *_LEFT_OVER)
            if os.path.lexists(home.state / name)
        ]
        if home.config_file.exists():
            moves.append(_move(home.config_file, before / "config.toml"))
    moves.append(_move(aside / "config.toml", home.config_file))
    moves += [
        _move(aside / name, home.state / name) for name in _REPLACED if (aside / name).exists()
    ]
    # The key that opens backups is in none of them: the one that was there goes on.
    if before is not None and home.backup_key_file.exists():
        kept = before / "secrets" / home.backup_key_file.name
        moves.append(_move(kept, home.backup_key_file))
    return Plan(tuple(moves), str(aside)), before


def _move(source: Path, target: Path) -> Move:
    return Move(str(source), str(target))


def _write_plan(home: Home, plan: Plan) -> None:
    home.config.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = home.state / PLAN
    fresh = file.with_name(f".{PLAN}.new")
    with fresh.open("wb") as target:
        target.write(msgspec.json.encode(plan))
        target.flush()
        os.fsync(target.fileno())
    fresh.rename(file)
    _sync(home.state)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
