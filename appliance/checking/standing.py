"""How the site stands: its settings, its certificates, its control plane, its entitlement."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

from appliance.admin.certificates import nodes as node_certificates
from appliance.admin.settings_desk import SettingsDesk
from appliance.branding import BadBranding, named_brand
from appliance.checking.findings import Check, Finding, aside, count, good, span
from appliance.domain.clock import Clock, utc
from appliance.registry.registry import Registry
from appliance.security.certificate_facts import CertificateFacts, facts_of
from appliance.security.site_ca import SiteAuthority
from appliance.settings import Settings, SettingsError
from appliance.wire.backups import BackupList
from appliance.wire.certificates import SiteCertificate
from appliance.wire.sync import EntitlementStatus, SyncStatus

_LAG_WARNING_S: Final = 3_600
_BACKUP_OLD_S: Final = 7 * 86_400
_DAYS_WARNING: Final = 14
_DAY_NS: Final = 86_400 * 1_000_000_000
_CA_DAYS_WARNING: Final = 365


def settings_check(desk: SettingsDesk) -> Check:
    async def look() -> Sequence[Finding]:
        return [await aside(lambda: settings_found(desk))]

    return Check(
        "settings.file", "The next start takes the settings as the file has them then.", look
    )


def settings_found(desk: SettingsDesk) -> Finding:
    try:
        waiting = desk.waiting()
    except SettingsError as error:
        told = f"The appliance would not start again: {error.message}"
        return Finding("failed", told, error.next_step)
    if waiting:
        told = (
            f"{count(len(waiting), 'setting')} in the file wait for a start: {', '.join(waiting)}."
        )
        return Finding("warning", told, "Start the appliance again when it suits.")
    return good("What runs is what the file and the environment say.")


def branding_check(settings: Settings) -> Check:
    async def look() -> Sequence[Finding]:
        return [await aside(lambda: branding_found(settings))]

    return Check("branding", "Without it the product shows its own name, and serves on.", look)


def branding_found(settings: Settings) -> Finding:
    try:
        brand = named_brand(settings)
    except BadBranding as error:
        return Finding("warning", error.message, error.next_step)
    return good("None is named." if brand is None else f"It is sold as {brand.product}.")


def backup_check(listed: Callable[[], Awaitable[BackupList]], clock: Clock) -> Check:
    async def look() -> Sequence[Finding]:
        return [backup_found(await listed(), utc(clock.wall_ns()))]

    return Check("backup", "A disk that fails takes with it what was nowhere else.", look)


def backup_found(found: BackupList, now: datetime) -> Finding:
    """`found` has the newest first."""
    if found.last_error:
        return Finding("failed", found.last_error, "`cic backup create --to FOLDER`")
    if not found.backups:
        return Finding("warning", f"There is none in {found.folder}.", "`cic backup create`")
    age_s = (now - datetime.fromisoformat(found.backups[0].made_at)).total_seconds()
    told = f"{count(len(found.backups), 'backup')}, the newest {span(max(0.0, age_s))} old."
    if age_s > _BACKUP_OLD_S:
        return Finding("warning", told, "`cic backup create`, or set backups.every_s.")
    if found.next_step:
        return Finding("warning", f"{told} {found.next_step}", "`cic backup key --to FILE`")
    return good(told)


def certificates_check(registry: Registry, authority: SiteAuthority, clock: Clock) -> Check:
    async def look() -> Sequence[Finding]:
        now_ns = clock.wall_ns()
        rows = node_certificates(await registry.node_certificates.list(), now_ns)
        return [authority_found(facts_of(authority.pem), now_ns), *certificate_findings(rows)]

    return Check("certificates", "A node without a good certificate is not let in.", look)


def authority_found(facts: CertificateFacts, now_ns: int) -> Finding:
    days = (facts.not_after_ns - now_ns) // _DAY_NS
    told = f"Good for {days:,} days; SHA-256 {facts.sha256[:16]}…"
    if days < 0:
        return Finding(
            "failed", "It has expired.", "Restore secrets/, or join every node anew.", "site CA"
        )
    if days < _CA_DAYS_WARNING:
        return Finding("warning", told, "Plan to join every node anew with a new CA.", "site CA")
    return good(told, "site CA")


def certificate_findings(rows: Sequence[SiteCertificate]) -> list[Finding]:
    """The newest certificate of each node."""
    newest: dict[str, SiteCertificate] = {}
    for row in rows:
        newest.setdefault(row.name, row)
    found = []
    for name, row in newest.items():
        fix = f"`cic node token create --node {name}`, and join it again."
        if row.state in {"expired", "revoked"}:
            found.append(
                Finding("warning", f"{row.state}, was good until {row.expires_at}.", fix, name)
            )
        elif row.state == "ending":
            told = f"Ends at {row.expires_at} and was not made new."
            found.append(Finding("warning", told, f"Look at its agent; else {fix}", name))
        else:
            found.append(good(f"Good until {row.expires_at}.", name))
    return found


def sync_check(status: Callable[[], Awaitable[SyncStatus]]) -> Check:
    async def look() -> Sequence[Finding]:
        return [sync_found(await status())]

    return Check("sync", "What is not receipted is told to nobody outside, and leases end.", look)


def sync_found(status: SyncStatus) -> Finding:
    lag = f"{count(status.lag_manifests, 'manifest')} without a receipt"
    lag = f"{lag}, the oldest {span(status.lag_age_s)} old." if status.lag_manifests else f"{lag}."
    if status.alarm:
        return Finding("failed", f"{status.alarm}: {status.alarm_detail}", status.next_step)
    if status.state == "never enrolled":
        return Finding("skipped", f"This site was never enrolled. {lag}")
    if status.mode == "offline":
        fix = "`cic bundle export --to /mnt/stick`, and bring its receipt back."
        late = status.lag_age_s > _LAG_WARNING_S * 24
        return Finding(
            "warning" if late else "ok", f"Offline by its settings. {lag}", fix if late else ""
        )
    told = f"{status.state}; {lag}"
    if status.last_error:
        late = status.lag_age_s > _LAG_WARNING_S * 24
        step = status.next_step or "`cic sync now` says more."
        return Finding("failed" if late else "warning", f"{told} {status.last_error}", step)
    if status.lag_age_s > _LAG_WARNING_S:
        return Finding("warning", told, "`cic sync now`")
    return good(told)


def entitlement_check(status: Callable[[], Awaitable[EntitlementStatus]]) -> Check:
    async def look() -> Sequence[Finding]:
        return [entitlement_found(await status())]

    return Check("entitlement", "When it ends, changes are refused, and later tokens.", look)


def entitlement_found(status: EntitlementStatus) -> Finding:
    told = status.message or f"It is {status.stage}."
    if status.stage in {"frozen", "throttled"}:
        return Finding("failed", told, status.next_step)
    if status.stage in {"warning", "grace"}:
        return Finding("warning", told, status.next_step)
    if status.exceeded:
        return Finding("warning", f"{told} More is used than it grants.", "`cic entitlement show`")
    if status.stage == "none":
        return Finding("skipped", status.message or "No entitlement is installed.")
    if status.days_left is not None and status.days_left < _DAYS_WARNING:
        return Finding("warning", told, status.next_step)
    return good(told)
