"""What every command knows of its site, and the refusals they share. Imports nothing heavy."""

import shlex
from pathlib import Path

from appliance.wire.command import CommandError, ExitCode
from appliance.wire.home import Home


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
    return f"{shlex.join(('cic', *home.arguments))} {subcommand}"


def require_site(home: Home) -> None:
    """Raises when `cic init` has not made a site in this home, or when it is not for us to see."""
    try:
        found = home.config_file.exists()
    except PermissionError as error:
        raise not_permitted(home.config_file) from error
    if not found:
        raise Refused(
            "unknown_home",
            f"There is no site in {home.config}.",
            next_step=f"Make one with `{cic_line(home, 'init')}`.",
            exit_code=ExitCode.CONFIGURATION,
        )


def not_permitted(path: Path) -> Refused:
    return Refused(
        "permission_denied",
        f"You may not use {path}.",
        next_step="Run it as the owner of that file, or as a member of its group.",
        exit_code=ExitCode.UNREACHABLE,
    )


def absolute(path: str) -> str:
    """A path as the appliance sees it: it runs in another folder."""
    return str(Path(path).expanduser().absolute())
