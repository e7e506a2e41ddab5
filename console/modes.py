"""The eight modes, by their digits. A mode's screen is loaded at its first visit."""

import importlib
from dataclasses import dataclass
from typing import Final

from console.view import View


@dataclass(frozen=True, slots=True)
class Mode:
    digit: str
    title: str
    module: str
    view: str

    def make(self) -> View:
        """Its root view."""
        made = getattr(importlib.import_module(self.module), self.view)()
        assert isinstance(made, View)
        return made


MODES: Final = (
    Mode("1", "Dash", "console.screens.dash", "DashView"),
    Mode("2", "Fleet", "console.screens.fleet", "FleetView"),
    Mode("3", "Models", "console.screens.models", "ModelsView"),
    Mode("4", "Tenants", "console.screens.tenants", "TenantsView"),
    Mode("5", "Usage", "console.screens.usage", "UsageView"),
    Mode("6", "Logs", "console.screens.logs", "LogsView"),
    Mode("7", "Chat", "console.screens.chat", "ChatView"),
    Mode("8", "Ops", "console.screens.ops", "OpsView"),
)
ALERTS_MODE: Final = "6"
