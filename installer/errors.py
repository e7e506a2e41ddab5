"""What ends the installer on purpose.

InstallerError            refused or failed; what is half done is in the journal        exit 1
├── BadAnswers            the answers file, or an option, is wrong                      exit 2
├── Blocked               the preflight found what keeps the appliance from running     exit 3
├── NotGenuine            the bundle is not whole, not signed, or not by the known key  exit 4
├── OtherInstaller        another installer changes this system now                     exit 5
├── Declined              the person at the terminal said no                            exit 1
├── NotInstalled          there is no installation to work on                           exit 1
├── OtherVersion          what is installed does not allow this                         exit 1
├── Unfinished            another operation was cut short and has to be ended first     exit 1
├── NoRoom                a disk has too little room for what is wanted                 exit 1
├── StepFailed            a step could not be carried out                               exit 1
├── UpgradeFailed         the new version did not prove itself; the old one serves      exit 1
└── NotTakenBack          the same, and the way back failed too: the next run tries it  exit 1
"""

from __future__ import annotations

from typing import ClassVar


class InstallerError(Exception):
    """What happened, and what to do next. `code` is stable; `exit_code` ends the program."""

    code: ClassVar[str] = "installer_error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step


class BadAnswers(InstallerError):
    code, exit_code = "bad_answers", 2


class Blocked(InstallerError):
    code, exit_code = "preflight_blocked", 3


class NotGenuine(InstallerError):
    code, exit_code = "bundle_not_genuine", 4


class OtherInstaller(InstallerError):
    code, exit_code = "other_installer", 5


class Declined(InstallerError):
    code = "declined"


class NotInstalled(InstallerError):
    code = "not_installed"


class OtherVersion(InstallerError):
    code = "other_version"


class Unfinished(InstallerError):
    code = "unfinished"


class NoRoom(InstallerError):
    code = "no_room"


class StepFailed(InstallerError):
    code = "step_failed"


class UpgradeFailed(InstallerError):
    code = "upgrade_failed"


class NotTakenBack(InstallerError):
    code = "not_taken_back"
