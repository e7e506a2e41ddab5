"""The root of every error the product raises on purpose.

CrossLogicError
├── SettingsError        appliance.settings
├── StorageError         appliance.storage
├── SecurityError        appliance.security
├── RegistryError        appliance.registry
├── LimitError           appliance.limits
├── SchedulerError       appliance.scheduler
├── LedgerError          appliance.metering
├── ManifestError        appliance.manifests
├── GatewayError         appliance.gateway
├── FleetError           appliance.fleet
├── SyncError            appliance.sync
├── ControlPlaneError    appliance.controlplane
└── CommandError         appliance.commands, agent
"""

from typing import ClassVar


class CrossLogicError(Exception):
    """What happened, and what to type or do next.

    `code` is stable and lower_snake_case; `message` says what happened and why in plain words;
    `next_step` is what a person does about it, "" where there is nothing to do.
    """

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}".strip()
