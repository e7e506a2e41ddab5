"""Every check there is, in the order they are shown."""

from __future__ import annotations

from installer.checks import (
    clock,
    disk,
    driver,
    gpu,
    installation,
    memory,
    network,
    policy,
    system,
)
from installer.checks.findings import Check, Group, Role

CHECKS: tuple[Check, ...] = (
    *system.CHECKS, *installation.CHECKS, *driver.CHECKS, *gpu.CHECKS, *memory.CHECKS,
    *disk.CHECKS, *network.CHECKS, *clock.CHECKS, *policy.CHECKS,
)  # fmt: skip


def chosen(role: Role, group: Group | None = None) -> tuple[Check, ...]:
    """The checks for a role, of one group or of all."""
    return tuple(
        one for one in CHECKS if role in one.roles and (group is None or one.group is group)
    )
