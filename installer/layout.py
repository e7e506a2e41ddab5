"""Where everything of a system install lies, below the root of the system or below another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GATEWAY_ACCOUNT = "crosslogic"
AGENT_ACCOUNT = "crosslogic-agent"
COMMANDS = ("cic", "cic-installer")


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths after the Filesystem Hierarchy Standard. `root` is `/`, or what --prefix names."""

    root: Path = Path("/")

    @property
    def is_this_system(self) -> bool:
        return self.root == Path("/")

    def inside(self, path: Path) -> str:
        """How the path is called by programs that run in this root."""
        return "/" + str(path.relative_to(self.root))

    def outside(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    @property
    def versions(self) -> Path:
        return self.root / "opt/crosslogic"

    def version(self, version: str) -> Path:
        return self.versions / version

    @property
    def current(self) -> Path:
        """A link to the folder of the version in use; its target is relative."""
        return self.versions / "current"

    def command(self, name: str) -> Path:
        return self.root / "usr/bin" / name

    @property
    def config(self) -> Path:
        return self.root / "etc/crosslogic"

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def home(self) -> Path:
        """State of the gateway: registry, ledger, secrets, models."""
        return self.root / "var/lib/crosslogic"

    @property
    def agent_home(self) -> Path:
        return self.root / "var/lib/crosslogic-agent"

    @property
    def logs(self) -> Path:
        return self.root / "var/log/crosslogic"

    @property
    def run(self) -> Path:
        return self.root / "run/crosslogic"

    @property
    def units(self) -> Path:
        return self.root / "usr/lib/systemd/system"

    @property
    def accounts_file(self) -> Path:
        """Makes the accounts when a system below another root boots (systemd-sysusers)."""
        return self.root / "usr/lib/sysusers.d/crosslogic.conf"

    @property
    def records(self) -> Path:
        """What the installer remembers; for root alone."""
        return self.root / "var/lib/crosslogic-installer"

    @property
    def lock(self) -> Path:
        return self.records / "lock"

    @property
    def journal(self) -> Path:
        return self.records / "journal.jsonl"

    @property
    def manifest(self) -> Path:
        return self.records / "install-manifest.json"

    @property
    def history(self) -> Path:
        return self.records / "history.jsonl"

    @property
    def answers(self) -> Path:
        """The answers of the installation, for its resumption and for upgrades. No secrets."""
        return self.records / "answers.json"

    @property
    def release_key(self) -> Path:
        """The key that the first bundle was checked with; later bundles have to be by it."""
        return self.records / "release-key.pem"

    @property
    def trusted_root(self) -> Path:
        return self.records / "root.json"
