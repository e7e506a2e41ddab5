"""Which checks a site has: one that runs, and one that is stopped."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.admin.ports import BackupSource
from appliance.admin.settings_desk import SettingsDesk
from appliance.checking.books import book_checks, commit_check
from appliance.checking.disk import disk_checks
from appliance.checking.engines import engine_check
from appliance.checking.findings import Check, Finding, aside, good
from appliance.checking.fleet import fleet_checks
from appliance.checking.host import host_checks, process_checks
from appliance.checking.standing import (
    backup_check,
    branding_check,
    certificates_check,
    entitlement_check,
    settings_check,
    sync_check,
)
from appliance.domain.clock import Clock
from appliance.fleet.service import Fleet
from appliance.metering.ledger import Ledger
from appliance.registry.registry import Registry
from appliance.scheduler.scheduler import Scheduler
from appliance.security.secrets import load_all
from appliance.security.site_ca import SiteAuthority
from appliance.security.site_tls import ApplianceTls
from appliance.settings import load
from appliance.sync.service import Synchronisation
from appliance.wire.home import Home


@dataclass(frozen=True, slots=True)
class Parts:
    """What the checks of a running site look at."""

    home: Home
    clock: Clock
    registry: Registry
    ledger: Ledger
    fleet: Fleet
    scheduler: Scheduler
    sync: Synchronisation
    authority: SiteAuthority
    tls: ApplianceTls
    backups: BackupSource


def running_checks(parts: Parts, settings: SettingsDesk) -> list[Check]:
    """In the order in which they are begun: what takes long first."""
    return [
        engine_check(
            *(parts.registry, parts.fleet, parts.scheduler, parts.clock, parts.tls.towards_nodes)
        ),
        *book_checks(parts.home),
        *disk_checks(parts.home),
        commit_check(parts.ledger),
        *process_checks(),
        *host_checks(parts.home),
        settings_check(settings),
        branding_check(settings.running),
        backup_check(parts.backups.all, parts.clock),
        certificates_check(parts.registry, parts.authority, parts.clock),
        *fleet_checks(parts.registry, parts.fleet),
        sync_check(parts.sync.status),
        entitlement_check(parts.sync.entitlement),
    ]


def stopped_checks(home: Home, environ: Mapping[str, str]) -> list[Check]:
    """What can be said of a site that does not run, first of all why it would not start."""

    async def running() -> Sequence[Finding]:
        return [Finding("failed", "The appliance does not run.", _serve_line(home))]

    async def settings() -> Sequence[Finding]:
        await aside(lambda: load(home.config_file, environ))
        return [good("The file and the environment are understood.")]

    async def secrets() -> Sequence[Finding]:
        await aside(lambda: load_all(home.secrets))
        return [good("They are there, and closed to others.")]

    async def folders() -> Sequence[Finding]:
        return await aside(lambda: [writable_found(path) for path in (home.state, home.run)])

    return [
        Check("appliance", "Nobody is served while it does not run.", running),
        Check(
            "settings.file", "With settings that are not understood it does not start.", settings
        ),
        Check("secrets", "Without them no API key is accepted.", secrets),
        Check("home.writable", "The ledger is written before anything is answered.", folders),
        *book_checks(home),
        *disk_checks(home),
        *host_checks(home),
    ]


def writable_found(folder: Path) -> Finding:
    if os.access(folder, os.W_OK | os.X_OK):
        return good("It can be written.", str(folder))
    fix = "It must belong to the account that serves; see `ls -ld`."
    return Finding("failed", "This account cannot write it.", fix, str(folder))


def _serve_line(home: Home) -> str:
    return f"Start it: `{' '.join(('cic', *home.arguments))} serve --with-agent`, or its service."
