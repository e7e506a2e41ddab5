"""What a subcommand of `cic` is told by the command it hangs under, and how it answers.

Exit codes are the same for every command and documented in docs/CLI.md.
"""

from dataclasses import dataclass
from enum import IntEnum

from appliance.domain.errors import CrossLogicError
from appliance.wire.home import Home


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1  # the command was understood and did not succeed
    USAGE = 2  # the command line is wrong
    NOT_FOUND = 3  # the named tenant, key, deployment, ... does not exist
    CONFLICT = 4  # it exists already, or its state does not allow this
    UNREACHABLE = 5  # the appliance of this home does not run, or does not answer
    DAMAGED = 6  # a verification found a defect
    CONFIGURATION = 7  # a setting, a file or a home is missing or wrong
    INTERRUPTED = 130  # Ctrl-C


@dataclass(frozen=True, slots=True)
class Invocation:
    """The options before the subcommand: `cic [--home DIR] [--json] SUBCOMMAND …`."""

    home: Home
    json: bool


class CommandError(CrossLogicError):
    """Ends a command with one clear message, its next step and an exit code."""

    code = "command_failed"

    def __init__(
        self, message: str, *, next_step: str = "", exit_code: ExitCode = ExitCode.FAILED
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.exit_code = exit_code
