"""Transactions: one after the other in effect, repeated when in the way, undone whole."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, inspect, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from appliance.controlplane import migration, tables
from appliance.controlplane.database import Database
from appliance.controlplane.errors import BadDatabaseUrl, DatabaseUnavailable, SchemaTooNew
from appliance.controlplane.migration import VERSIONS, migrate
from tests.fakes.clock import START_NS


class Spoiled(Exception):
    pass


def _versions(connection: Connection) -> list[int]:
    return list(
        connection.execute(select(VERSIONS.c.version).order_by(VERSIONS.c.version)).scalars()
    )


def _add(version: int) -> object:
    return lambda connection: connection.execute(
        insert(VERSIONS).values(version=version, at_ns=START_NS)
    )


def test_every_table_is_made_once(database: Database) -> None:
    migrate(database, START_NS)
    assert database.read(_versions) == [migration.VERSION]
    made = database.read(lambda connection: set(inspect(connection).get_table_names()))
    assert made == set(tables.METADATA.tables)


def test_several_that_start_at_once_make_the_tables_once(database_url: str) -> None:
    opened = [Database.open(database_url) for _ in range(3)]
    try:
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(lambda database: migrate(database, START_NS), opened))
        assert opened[0].read(_versions) == [migration.VERSION]
    finally:
        for database in opened:
            database.close()


def test_a_newer_database_is_refused(database: Database) -> None:
    database.transact(_add(migration.VERSION + 1))
    with pytest.raises(SchemaTooNew):
        migrate(database, START_NS)


def test_what_raises_leaves_nothing(database: Database) -> None:
    def spoil(connection: Connection) -> None:
        connection.execute(insert(VERSIONS).values(version=7, at_ns=START_NS))
        raise Spoiled

    with pytest.raises(Spoiled):
        database.transact(spoil)
    assert 7 not in database.read(_versions)


def test_an_error_of_the_statement_is_the_callers(database: Database) -> None:
    with pytest.raises(IntegrityError):
        database.transact(_add(migration.VERSION))


def test_a_transaction_that_swallowed_its_failure_does_not_count_as_committed(
    database: Database,
) -> None:
    """PostgreSQL answers ROLLBACK, and no error, to the COMMIT of a transaction that failed."""

    def swallow(connection: Connection) -> None:
        connection.execute(insert(VERSIONS).values(version=8, at_ns=START_NS))
        try:
            connection.execute(insert(VERSIONS).values(version=8, at_ns=START_NS))
        except IntegrityError:
            return

    try:
        database.transact(swallow)
        said = True
    except (SQLAlchemyError, DatabaseUnavailable):
        said = False
    assert said == (8 in database.read(_versions))


def test_a_read_cannot_write_to_a_shared_database_and_sees_one_moment(database: Database) -> None:
    def look(connection: Connection) -> tuple[int, int]:
        before = len(_versions(connection))
        database.transact(_add(50))
        return before, len(_versions(connection))

    assert database.read(look) == (1, 1)
    assert len(database.read(_versions)) == 2


def test_no_increment_is_lost_between_threads(database: Database) -> None:
    """Read, decide, write: the form every decision of billing has."""
    database.transact(_add(100))

    def increment(connection: Connection) -> None:
        row = VERSIONS.c.version == 100
        seen = connection.execute(select(VERSIONS.c.at_ns).where(row)).scalar_one()
        connection.execute(update(VERSIONS).where(row).values(at_ns=seen + 1))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: database.transact(increment), range(40)))
    moment = database.read(
        lambda connection: connection.execute(
            select(VERSIONS.c.at_ns).where(VERSIONS.c.version == 100)
        ).scalar_one()
    )
    assert moment == START_NS + 40


def test_a_sum_that_two_decide_on_at_once_is_right(database: Database) -> None:
    """Write skew: each sees room for one more; only what could happen one by one may happen."""
    gate = threading.Barrier(2, timeout=5)
    met: list[bool] = []

    def take_room(version: int) -> None:
        def run(connection: Connection) -> None:
            taken = connection.execute(
                select(func.count()).where(VERSIONS.c.version >= 1_000)
            ).scalar_one()
            if database.shared and not met:
                gate.wait()
                met.append(True)
            if taken == 0:
                connection.execute(insert(VERSIONS).values(version=version, at_ns=START_NS))

        database.transact(run)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(take_room, (1_000, 1_001)))
    assert len([v for v in database.read(_versions) if v >= 1_000]) == 1


async def test_the_event_loop_may_wait_for_both(database: Database) -> None:
    await database.arun(_add(60))
    assert 60 in await database.aread(_versions)


def test_sqlite_reaches_the_disk_at_every_commit(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'a.db'}")
    try:
        pragmas = database.read(
            lambda connection: [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        )
    finally:
        database.close()
    assert pragmas == ["wal", 2, 1]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://secret-word@localhost/x",
        "sqlite:////no/such/folder/secret-word.db",
        "postgresql://a:secret-word@localhost/x?sslmode=prefer",
        "postgresql://a:secret-word@localhost/x?colour=red",
    ],
)
def test_an_address_that_cannot_be_used_is_named_without_its_password(url: str) -> None:
    with pytest.raises(BadDatabaseUrl) as refused:
        Database.open(url)
    assert "secret-word" not in str(refused.value)
    assert refused.value.next_step


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable) as refused:
        Database.open(f"postgresql://a:secret-word@localhost/x?host={tmp_path}")
    assert "secret-word" not in str(refused.value)


def test_other_accounts_cannot_read_sqlite_files(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'plane.db'}")
    migrate(database, START_NS)
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    database.close()
    assert modes
    assert set(modes.values()) == {0o600}
