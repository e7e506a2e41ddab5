"""The control plane's frozen settings: `control-plane.toml` in its home, then `CICP_…` variables.

docs/CONTROL_PLANE.md lists them; a test compares.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import platformdirs

from appliance.controlplane.errors import ControlPlaneUnready
from appliance.settings import Count, Positive, Section, load_as

ENVIRONMENT_PREFIX: Final = "CICP_"
_FOLDER: Final = "crosslogic-control-plane"


class Listen(Section, frozen=True):
    address: str = "127.0.0.1:8700"
    tls_certificate: str = ""  # PEM files; "" serves plain HTTP, for a proxy that ends TLS
    tls_key: str = ""
    head_s: Positive = 10.0  # from the first byte of a request to the end of its head
    body_s: Positive = 120.0  # from the head to the end of the body
    stop_s: Positive = 30.0  # requests in flight, at SIGTERM


class DatabaseSettings(Section, frozen=True):
    url: str = ""  # "" is SQLite in the home


class Ingest(Section, frozen=True):
    bundle_bytes_max: Count = 32 * 1024 * 1024  # of one POST; a file may be larger
    at_once_max: Count = 2  # bundles that are verified at the same time
    processes: Annotated[int, msgspec.Meta(ge=0, le=64)] = 2  # that help to verify large bundles
    requests_per_min: Count = 120  # of one appliance
    evidence_bytes_max: Count = 1024 * 1024  # of what is kept of a manifest that was refused
    evidence_per_site_max: Count = 1_000  # rows of it


class Stripe(Section, frozen=True):
    api_key: str = ""  # "" leaves everything in the outbox
    webhook_secret: str = ""
    api_base: str = ""  # "" is Stripe's own


class Billing(Section, frozen=True):
    currency: Annotated[str, msgspec.Meta(pattern="^[a-z]{3}$")] = "usd"


class Log(Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"


class ControlPlaneSettings(Section, frozen=True):
    """Everything a control plane can be told."""

    listen: Listen = Listen()
    database: DatabaseSettings = DatabaseSettings()
    ingest: Ingest = Ingest()
    stripe: Stripe = Stripe()
    billing: Billing = Billing()
    log: Log = Log()


@dataclass(frozen=True, slots=True)
class ControlHome:
    """The folder of one control plane. Its names differ from those of a site's home."""

    root: Path

    def require(self) -> None:
        """Raises ControlPlaneUnready when `init` has made nothing here."""
        if not self.config_file.exists():
            raise ControlPlaneUnready(
                f"There is no control plane in {self.root}.",
                next_step=f"Make one with `cic control-plane --home {self.root} init`.",
            )

    @property
    def config_file(self) -> Path:
        return self.root / "control-plane.toml"

    @property
    def database_file(self) -> Path:
        return self.root / "control-plane.db"

    @property
    def secrets(self) -> Path:
        return self.root / "control-plane-secrets"

    @property
    def signing_key(self) -> Path:
        """Signs receipts, entitlements, grants and revocations."""
        return self.secrets / "signing-key"

    @property
    def operator_token(self) -> Path:
        """What the operator API's bearer token is made from."""
        return self.secrets / "operator-token"


def find_control_home(option: str | None, environ: Mapping[str, str] = os.environ) -> ControlHome:
    """The home named by `--home`, else by CICP_HOME, else the platform's own folder."""
    named = option or environ.get(f"{ENVIRONMENT_PREFIX}HOME")
    if named:
        return ControlHome(Path(named).expanduser().absolute())
    return ControlHome(Path(platformdirs.PlatformDirs(_FOLDER, appauthor=False).user_data_dir))


def load(home: ControlHome, environ: Mapping[str, str] = os.environ) -> ControlPlaneSettings:
    """Raises SettingsError that names the file or variable, and what it should be."""
    return load_as(ControlPlaneSettings, ENVIRONMENT_PREFIX, home.config_file, environ)


def database_url(home: ControlHome, settings: ControlPlaneSettings) -> str:
    return settings.database.url or f"sqlite:///{home.database_file}"
