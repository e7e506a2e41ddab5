"""Every test of the control plane runs on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.controlplane.database import Database
from appliance.controlplane.migration import migrate
from tests.fakes.clock import START_NS
from tests.fakes.postgresql import Server, programs, server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """One server for the whole session."""
    binaries = programs()
    if binaries is None:
        pytest.skip("no PostgreSQL on this machine, and no wheel of it")
    with server(binaries) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'control-plane.db'}"
        return
    running: Server = request.getfixturevalue("postgresql")
    with running.database() as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open database with every table."""
    opened = Database.open(database_url)
    try:
        migrate(opened, START_NS)
        yield opened
    finally:
        opened.close()
