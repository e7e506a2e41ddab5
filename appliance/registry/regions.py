"""Regions with their price multipliers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RegionRow:
    name: str
    multiplier_bp: int  # basis points: 7000 is 0.7, 10000 is 1.0
    created_at_ns: int


class Regions:
    async def create(self, actor: str, name: str, multiplier_bp: int = 10_000) -> RegionRow:
        raise NotImplementedError

    async def list(self) -> list[RegionRow]:
        """By name."""
        raise NotImplementedError

    async def get(self, name: str) -> RegionRow:
        raise NotImplementedError

    async def update(self, actor: str, name: str, *, multiplier_bp: int) -> RegionRow:
        raise NotImplementedError

    async def delete(self, actor: str, name: str) -> None:
        """Raises InUse while a living environment, deployment or node is in it."""
        raise NotImplementedError
