"""Every test of the control plane runs on SQLite and on PostgreSQL."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.controlplane.database import Database
from appliance.controlplane.identity import create
from appliance.controlplane.migration import migrate
from appliance.controlplane.service import ControlPlane, open_control_plane
from appliance.controlplane.settings import ControlHome, ControlPlaneSettings, DatabaseSettings
from tests.fakes.clock import START_NS, ManualClock
from tests.fakes.entropy import SeededEntropy
from tests.fakes.postgresql import Server, programs, server
from tests.fakes.sites import START_NS as SITE_START_NS


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """One server for the whole session."""
    binaries = programs()
    if binaries is None:
        pytest.skip("no PostgreSQL on this machine, and no wheel of it")
    with server(binaries) as running:
        yield running


@pytest.fixture(scope="session")
def postgresql_template(postgresql: Server) -> str:
    """The name of a database with every table: to copy it is quicker than to make them."""
    _make_tables(postgresql.make_template("with_tables"))
    return "with_tables"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "control-plane.db"
    _make_tables(f"sqlite:///{file}")
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def tables_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database with every table, and nothing in them."""
    if request.param == "sqlite":
        file = tmp_path / "control-plane.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), file)
        yield f"sqlite:///{file}"
        return
    running: Server = request.getfixturevalue("postgresql")
    with running.database(request.getfixturevalue("postgresql_template")) as url:
        yield url


def _make_tables(url: str) -> None:
    opened = Database.open(url)
    try:
        migrate(opened, START_NS)
    finally:
        opened.close()


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
def database(tables_url: str) -> Iterator[Database]:
    """An open database with every table."""
    opened = Database.open(tables_url)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def plane(tables_url: str, tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane whose clock stands still at the time of `tests.fakes.sites`, a day later."""
    home = ControlHome(tmp_path / "control")
    home.root.mkdir()
    home.config_file.write_text("")
    create(home, SeededEntropy(7))
    opened = open_control_plane(
        home,
        clock=ManualClock(SITE_START_NS + 86_400 * 1_000_000_000),
        entropy=SeededEntropy(11),
        settings=ControlPlaneSettings(database=DatabaseSettings(url=tables_url)),
    )
    try:
        yield opened
    finally:
        opened.close()
