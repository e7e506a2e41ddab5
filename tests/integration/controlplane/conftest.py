"""Control planes in a home, on SQLite or on a PostgreSQL that several share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.controlplane.identity import create
from appliance.controlplane.service import ControlPlane, open_control_plane
from appliance.controlplane.settings import ControlHome
from tests.fakes.entropy import SeededEntropy
from tests.fakes.postgresql import Server, programs, server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    binaries = programs()
    if binaries is None:
        pytest.skip("no PostgreSQL on this machine, and no wheel of it")
    with server(binaries) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database that several processes of this machine can use."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'shared.db'}"
        return
    running: Server = request.getfixturevalue("postgresql")
    with running.database() as url:
        yield url


@pytest.fixture
def home(tmp_path: Path, shared_url: str) -> ControlHome:
    made = ControlHome(tmp_path / "control")
    made.root.mkdir()
    made.config_file.write_text(f'[database]\nurl = "{shared_url}"\n[ingest]\nprocesses = 0\n')
    create(made, SeededEntropy(7))
    return made


@pytest.fixture
def another(home: ControlHome) -> Iterator[Callable[[], ControlPlane]]:
    """Opens one more instance of the same control plane each time."""
    opened: list[ControlPlane] = []

    def open_one() -> ControlPlane:
        opened.append(open_control_plane(home))
        return opened[-1]

    yield open_one
    for plane in opened:
        plane.close()
