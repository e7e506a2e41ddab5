"""What every step works with: paths, answers, bundle, manifest, services, product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from installer.answers import Answers
from installer.bundle import Bundle
from installer.layout import GATEWAY_ACCOUNT, Layout
from installer.making import Maker
from installer.product import Product
from installer.programs import Account, account_of
from installer.records import Manifest
from installer.services import OwnProcess, Services, SystemdServices, systemd_runs

GATEWAY_UNITS = (
    "crosslogic-gateway.socket",
    "crosslogic-gateway.service",
    "crosslogic-backup.timer",
)
AGENT_UNITS = ("crosslogic-agent.service",)


@dataclass(slots=True)
class Work:
    """One run of the installer."""

    layout: Layout
    answers: Answers
    bundle: Bundle
    manifest: Manifest
    services: Services
    tell: Callable[[str], None]
    """One line for the person who waits."""
    notes: list[str] = field(default_factory=list)
    """What the person has to know at the end."""
    key: str = ""
    """The secret of the first key: in memory alone, and shown once."""
    models: tuple[str, ...] = ()
    """Deployments that answer."""

    @property
    def make(self) -> Maker:
        return Maker(self.layout, self.manifest)

    @property
    def product(self) -> Product:
        return product_of(self.layout, self.bundle.version)

    @property
    def with_agent(self) -> bool:
        return self.answers.role == "all"


def account_in(layout: Layout, name: str) -> Account | None:
    """The account's numbers; none below another root, where only that system knows them."""
    return account_of(name) if layout.is_this_system else None


def product_of(layout: Layout, version: str) -> Product:
    program = layout.version(version) / "bin/cic"
    return Product(program, layout.home, account_in(layout, GATEWAY_ACCOUNT))


def units_in(folder: Path, role: str) -> tuple[str, ...]:
    """Units of a version that are started for a role, in their order."""
    wanted = {"all": GATEWAY_UNITS + AGENT_UNITS, "gateway": GATEWAY_UNITS, "node": AGENT_UNITS}
    return tuple(name for name in wanted[role] if (folder / name).is_file())


def reload_units(layout: Layout) -> None:
    """Unit files went: systemd would go on to know them."""
    if systemd_runs(layout):
        SystemdServices(layout, ()).reload()


def services_of(layout: Layout, units: tuple[str, ...], *, with_agent: bool) -> Services:
    if units and systemd_runs(layout):
        return SystemdServices(layout, units)
    return OwnProcess(layout, with_agent=with_agent)
