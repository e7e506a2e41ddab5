"""Where the programs of one host meet: the folders and sockets of a site.

`--home DIR` or CIC_HOME puts everything into one folder; otherwise platformdirs names the folders
of the person who runs it. A system install lies in /etc, /var/lib, /run and /var/log: it is found
by itself where /etc/crosslogic is, and below another root by `--home ROOT/var/lib/crosslogic`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

APP_NAME = "crosslogic"
_CONFIG = Path("etc") / APP_NAME
_STATE = Path("var/lib") / APP_NAME


@dataclass(frozen=True, slots=True)
class Home:
    """Folders of one site on one host. Nothing here exists until `cic init` makes it."""

    config: Path
    state: Path
    run: Path
    logs: Path
    root: Path | None = None  # the one folder that holds all of it, where a folder was named

    @property
    def arguments(self) -> tuple[str, ...]:
        """What another `cic` is given on its command line to find this home."""
        return () if self.root is None else ("--home", str(self.root))

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def registry_file(self) -> Path:
        return self.state / "registry.db"

    @property
    def ledger_file(self) -> Path:
        return self.state / "ledger.db"

    @property
    def manifest_note(self) -> Path:
        """The number and hash of the newest manifest, beside the ledger that holds it."""
        return self.state / "manifest-head.json"

    @property
    def secrets(self) -> Path:
        return self.state / "secrets"

    @property
    def pack_key_file(self) -> Path:
        """What signs the model packs that are made in this home."""
        return self.secrets / "pack-key"

    @property
    def backup_key_file(self) -> Path:
        """What opens this site's backups, where no passphrase was given. Not in any of them."""
        return self.secrets / "backup-key"

    @property
    def backups(self) -> Path:
        return self.state / "backups"

    @property
    def observed(self) -> Path:
        """What the appliance remembers of what it saw: alerts, events, history."""
        return self.state / "observed"

    @property
    def models(self) -> Path:
        return self.state / "models"

    @property
    def agent_state(self) -> Path:
        """The agent's durable state: desired deployments, running engines, engine logs."""
        return self.state / "agent"

    @property
    def admin_socket(self) -> Path:
        return self.run / "admin.sock"

    @property
    def agent_socket(self) -> Path:
        """Where the agent on this host speaks to the appliance."""
        return self.run / "agent.sock"

    @property
    def lock_file(self) -> Path:
        """Held with flock by the `cic serve` that runs this site."""
        return self.run / "serve.lock"

    @property
    def endpoint_file(self) -> Path:
        """One line, the base URL of the endpoint, while `cic serve` runs."""
        return self.run / "endpoint"


def find_home(
    option: str | None, environ: Mapping[str, str] = os.environ, system: Path = Path("/")
) -> Home:
    """The home named by `--home`, else by CIC_HOME, else the system's, else the person's own.

    A system install is where `etc/crosslogic` is in `system`; a named folder is part of one when it
    is `var/lib/crosslogic` of a root that has `etc/crosslogic` too.
    """
    named = option or environ.get("CIC_HOME")
    if named:
        root = Path(named).expanduser().absolute()
        if root.parts[-3:] == _STATE.parts and (root.parents[2] / _CONFIG).is_dir():
            return _system_home(root.parents[2], root)
        return Home(config=root, state=root, run=root / "run", logs=root / "log", root=root)
    if (system / _CONFIG).is_dir():
        return _system_home(system, None)
    dirs = platformdirs.PlatformDirs(APP_NAME, appauthor=False)
    state = Path(dirs.user_data_dir)
    # Without XDG_RUNTIME_DIR the platform's answer is a guessable name under /tmp, which anybody on
    # the host could have made first.
    private = environ.get("XDG_RUNTIME_DIR")
    return Home(
        config=Path(dirs.user_config_dir),
        state=state,
        run=Path(private) / APP_NAME if private else state / "run",
        logs=Path(dirs.user_log_dir),
    )


def _system_home(system: Path, root: Path | None) -> Home:
    return Home(
        config=system / _CONFIG,
        state=system / _STATE,
        run=system / "run" / APP_NAME,
        logs=system / "var/log" / APP_NAME,
        root=root,
    )
