"""A move of an installation from one version to another, as its steps know it."""

from __future__ import annotations

from dataclasses import dataclass, field

from installer.records import Journal
from installer.work import Work

DATABASES = ("registry", "ledger")


@dataclass(slots=True)
class Move:
    """From one version to another, both of which are there or are going to be."""

    kind: str
    """upgrade or rollback"""
    old: Work
    new: Work
    journal: Journal
    completion: bool
    """A deployment that answered has to answer again."""
    backup: str = ""
    """Made by the old version before it is left; to be put back where `contracts` were applied."""
    contracts: list[str] = field(default_factory=list)
    """Steps of the schema after which the version that was left cannot go on."""
    restores: str = ""
    """The backup that this rollback puts back."""
    answering: str = ""
    """The deployment that answered before; empty: none did."""

    @property
    def current(self) -> str:
        return self.old.bundle.version

    @property
    def to(self) -> str:
        return self.new.bundle.version
