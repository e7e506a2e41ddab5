"""Other programs: run from a list of words, with a clean environment, a deadline and an account."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from installer.errors import StepFailed

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT: Mapping[str, str] = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/"}
DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a program runs as: numbers of the host's databases."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


def find(program: str) -> str | None:
    return shutil.which(program, path=PATH)


def run(
    command: Sequence[str],
    *,
    account: Account | None = None,
    deadline_s: float = DEADLINE_S,
    env: Mapping[str, str] = ENVIRONMENT,
) -> Ran:
    """What became of it; its standard input is empty. Raises StepFailed where it cannot be run."""
    as_account: dict[str, object] = {}
    if account is not None and account.uid != os.geteuid():
        as_account = {"user": account.uid, "group": account.gid, "extra_groups": []}
    try:
        done = subprocess.run(  # type: ignore[call-overload]  # keywords of one of its forms
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline_s,
            env=dict(env),
            cwd="/",
            check=False,
            **as_account,
        )
    except OSError as error:
        raise StepFailed(
            f"{command[0]} cannot be run: {error.strerror}.",
            next_step="Look whether it is there and may be run: a file system mounted noexec, or a"
            " policy (fapolicyd, SELinux), refuses programs. Then run this again.",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise StepFailed(
            f"{' '.join(command[:3])} … did not end within {deadline_s:.0f} s.",
            next_step="journalctl -xe and dmesg tell what hangs; then run this again.",
        ) from error
    return Ran(done.returncode, done.stdout, done.stderr)


def must(command: Sequence[str], *, next_step: str, deadline_s: float = DEADLINE_S) -> str:
    """Its output. Raises StepFailed with what it said when it fails."""
    ran = run(command, deadline_s=deadline_s)
    if ran.code:
        said = (ran.err.strip() or ran.out.strip() or f"exit code {ran.code}").splitlines()[-1]
        raise StepFailed(f"{' '.join(command)} failed: {said}", next_step=next_step)
    return ran.out


def account_of(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid)


def group_of(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
