"""The eight modes, by their digits. A mode's screen is loaded at its first visit."""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Final

from appliance.wire.stream import Topic
from console.view import View


@dataclass(frozen=True, slots=True)
class Mode:
    digit: str
    title: str
    module: str
    view: str
    table: Topic  # what is shown while it has no screen of its own

    def make(self) -> View:
        """Its root view."""
        if importlib.util.find_spec(self.module) is None:
            from console.screens.tables import TablesView  # noqa: PLC0415 (only then)

            return TablesView(self.table)
        made = getattr(importlib.import_module(self.module), self.view)()
        assert isinstance(made, View)
        return made


MODES: Final = (
    Mode("1", "Dash", "console.screens.dash", "DashView", "deployments"),
    Mode("2", "Fleet", "console.screens.fleet", "FleetView", "nodes"),
    Mode("3", "Models", "console.screens.models", "ModelsView", "deployments"),
    Mode("4", "Tenants", "console.screens.tenants", "TenantsView", "tenants"),
    Mode("5", "Usage", "console.screens.usage", "UsageView", "tenants"),
    Mode("6", "Logs", "console.screens.logs", "LogsView", "events"),
    Mode("7", "Chat", "console.screens.chat", "ChatView", "deployments"),
    Mode("8", "Ops", "console.screens.ops", "OpsView", "alerts"),
)
ALERTS_MODE: Final = "6"
