"""A registry on a file in a temporary folder, with a clock that stands still."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.domain.limits import UNLIMITED, Limits
from appliance.registry.registry import Registry, open_database
from appliance.security.seal import Seal
from tests.fakes.clock import ManualClock
from tests.fakes.entropy import SeededEntropy

ACTOR = "uid 1000 (tests)"
PEPPER = b"p" * 32
SEAL_KEY = b"s" * 32


class Site:
    """The registry of a test, its file and its clock."""

    def __init__(self, path: Path, *, global_limits: Limits = UNLIMITED) -> None:
        self.path = path
        self.clock = ManualClock()
        self.database = open_database(path)
        self.registry = Registry(
            self.database,
            pepper=PEPPER,
            seal=Seal(SEAL_KEY),
            clock=self.clock,
            site_region="local",
            global_limits=global_limits,
            entropy=SeededEntropy(),
        )

    def close(self) -> None:
        self.database.close()

    @contextmanager
    def as_an_intruder(self) -> Iterator[sqlite3.Connection]:
        """The file as someone has it who owns the disk: without triggers, foreign keys off."""
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA foreign_keys=OFF")
        for trigger in ("audit_keeps_entries", "audit_keeps_content"):
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        yield connection
        connection.commit()
        connection.close()
