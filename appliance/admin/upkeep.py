"""What an administrator looks after: settings, the log, certificates, health checks."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from appliance.admin.log_ring import LogRing
from appliance.admin.settings_desk import SettingsDesk
from appliance.security.site_ca import SiteAuthority
from appliance.security.site_tls import ApplianceTls
from appliance.wire.checks import CheckResult


class CheckSource(Protocol):
    """The health checks of a running appliance."""

    def run(self, only: str) -> AsyncIterator[CheckResult]:
        """Results as they are done; `only` begins their names. One run at a time: else it raises

        ChecksRunning with the first step.
        """
        ...


@dataclass(frozen=True, slots=True)
class Upkeep:
    settings: SettingsDesk
    logs: LogRing
    authority: SiteAuthority
    tls: ApplianceTls
    checks: CheckSource
