"""What every command knows of its site, and the refusals they share. Imports nothing heavy."""

import shlex
from pathlib import Path

from appliance.wire.command import CommandError, ExitCode
from appliance.wire.home import Home, find_home


class Refused(CommandError):
    """A refusal with a code of its own: the admin API's, or one that scripts tell apart."""

    def __init__(
        self,
        wire_code: str,
        message: str,
        *,
        next_step: str = "",
        exit_code: ExitCode = ExitCode.FAILED,
    ) -> None:
        super().__init__(message, next_step=next_step, exit_code=exit_code)
        self.wire_code = wire_code


def cic_line(home: Home, subcommand: str) -> str:
    """A command line for this home that can be typed as it is printed."""
    if home == find_home(None, {}):
        return f"cic {subcommand}"
    return f"cic --home {shlex.quote(str(home.config))} {subcommand}"


def require_site(home: Home) -> None:
    """Raises when `cic init` has not made a site in this home."""
    if not home.config_file.exists():
        raise Refused(
            "unknown_home",
            f"There is no site in {home.config}.",
            next_step=f"Make one with `{cic_line(home, 'init')}`.",
            exit_code=ExitCode.CONFIGURATION,
        )


def absolute(path: str) -> str:
    """A path as the appliance sees it: it runs in another folder."""
    return str(Path(path).expanduser().absolute())
