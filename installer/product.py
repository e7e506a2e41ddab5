"""The installed `cic`, asked in JSON: the only way in which the installer touches a site."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from installer.errors import StepFailed
from installer.programs import DEADLINE_S, Account, run

ALREADY = {"already_exists"}


class ProductRefused(StepFailed):
    """`cic` said no. `product_code` is its own stable code."""

    def __init__(self, message: str, *, product_code: str, next_step: str) -> None:
        super().__init__(message, next_step=next_step)
        self.product_code = product_code


@dataclass(frozen=True, slots=True)
class Product:
    """One version's `cic` for one home, run as the account that owns the home."""

    program: Path
    home: Path
    account: Account | None = None

    def ask(self, *words: str, deadline_s: float = DEADLINE_S) -> Any:
        """What it printed as JSON, None for nothing. Raises ProductRefused with its next step."""
        command = [str(self.program), "--home", str(self.home), "--json", *words]
        ran = run(command, account=self.account, deadline_s=deadline_s)
        answer = _parsed(ran.out)
        if ran.code == 0:
            return answer
        error = answer.get("error") if isinstance(answer, dict) else None
        shown = f"cic {' '.join(words[:3])}"
        if isinstance(error, dict):
            raise ProductRefused(
                f"{shown}: {error.get('message')}",
                product_code=str(error.get("code")),
                next_step=str(error.get("next_step") or f"See {shown} --help."),
            )
        said = (ran.err.strip() or ran.out.strip() or "nothing").splitlines()[-1]
        raise ProductRefused(
            f"{shown} ended with exit code {ran.code} and said: {said}",
            product_code="",
            next_step="cic doctor, and journalctl -u crosslogic-gateway, tell more.",
        )

    def makes(self, *words: str) -> Any:
        """As `ask`, for what may be there already: None then."""
        try:
            return self.ask(*words)
        except ProductRefused as refused:
            if refused.product_code in ALREADY:
                return None
            raise

    def offers(self, *words: str) -> bool:
        """Whether this version has the command."""
        return run([str(self.program), *words, "--help"], account=self.account).code == 0

    def version(self) -> str:
        """Raises StepFailed when the program does not even say that."""
        ran = run([str(self.program), "--version"], account=self.account, deadline_s=60)
        if ran.code or not ran.out.startswith("cic "):
            said = (ran.err.strip() or ran.out.strip() or "nothing").splitlines()[-1]
            raise StepFailed(
                f"{self.program} does not run: {said}",
                next_step="The bundle does not fit this system, or was changed; unpack it again.",
            )
        return ran.out.split()[1]


def _parsed(out: str) -> Any:
    try:
        return json.loads(out)
    except ValueError:
        return None


def wait_until(
    ready: Callable[[], bool], *, deadline_s: float, clock: Callable[[], float],
    sleep: Callable[[float], None], every_s: float = 0.1,
) -> bool:  # fmt: skip
    """Whether it became true within the deadline."""
    ends_at = clock() + deadline_s
    while True:
        if ready():
            return True
        if clock() >= ends_at:
            return False
        sleep(every_s)
