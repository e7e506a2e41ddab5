"""What every command of the control plane knows: its home, settings and open database."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.controlplane.settings import ControlHome, ControlPlaneSettings, database_url, load
from appliance.domain.clock import SystemClock

if TYPE_CHECKING:
    from appliance.controlplane.database import Database
    from appliance.controlplane.service import ControlPlane


def actor() -> str:
    """Who types the command, for the audit."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


@dataclass(frozen=True, slots=True)
class ControlInvocation:
    """The options before the subcommand: `cic control-plane [--home DIR] [--json] …`."""

    home: ControlHome
    json: bool

    def settings(self) -> ControlPlaneSettings:
        """Raises ControlPlaneUnready in a folder without a control plane, or SettingsError."""
        self.home.require()
        return load(self.home)

    @contextmanager
    def plane(self) -> "Iterator[ControlPlane]":
        """The control plane of this home, opened: secrets, database, ingest."""
        from appliance.controlplane.service import open_control_plane  # noqa: PLC0415 (see below)

        opened = open_control_plane(self.home)
        try:
            yield opened
        finally:
            opened.close()

    @contextmanager
    def database(self) -> "Iterator[Database]":
        """The database, open and of this version. Raises DatabaseUnavailable, SchemaTooNew."""
        # Loaded here: `--help` and `key` need no database.
        from appliance.controlplane.database import Database  # noqa: PLC0415
        from appliance.controlplane.migration import migrate  # noqa: PLC0415

        opened = Database.open(database_url(self.home, self.settings()))
        try:
            migrate(opened, SystemClock().wall_ns())
            yield opened
        finally:
            opened.close()
