"""Makes what an administrator looks after in a running appliance."""

import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack

from appliance.admin.log_ring import LogRing
from appliance.admin.roles import Roles
from appliance.admin.settings_desk import SettingsDesk
from appliance.admin.upkeep import Upkeep
from appliance.checking.runner import Checks
from appliance.checking.site import Parts, running_checks
from appliance.settings import Settings


def keep_log(stack: AsyncExitStack) -> LogRing:
    """Keeps the last lines of the log in memory for as long as the appliance runs."""
    ring, root = LogRing(), logging.getLogger()
    root.addHandler(ring)
    stack.callback(root.removeHandler, ring)
    return ring


def make_upkeep(parts: Parts, settings: Settings, roles: Roles, ring: LogRing) -> Upkeep:
    """`settings` are those that the site was started with."""
    desk = SettingsDesk(parts.home.config_file, os.environ, settings, _at_once(roles))
    checks = Checks(running_checks(parts, desk), parts.clock)
    return Upkeep(desk, ring, parts.authority, parts.tls, checks)


def _at_once(roles: Roles) -> Callable[[Settings], None]:
    """Puts into force those settings that need no start."""

    def apply(settings: Settings) -> None:
        roles.adopt(settings.access)
        logging.getLogger().setLevel(settings.log.level.upper())

    return apply
