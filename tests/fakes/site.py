"""A real site for tests: `cic init`, `cic serve` on a free port, real keys and deployments.

    with running_site(tmp) as site:
        site.deployment("fault", engine.url)
        key = site.key()
        openai.OpenAI(base_url=site.base_url, api_key=key.secret)

The appliance is a process of its own. Objects are made through the admin API's unix socket; `cic`
runs the real command where the command line itself is of interest. Everything is synchronous.
"""

import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

START_S = 30.0
STOP_S = 30.0
CALL_S = 15.0
POLL_S = 0.02

Row = dict[str, Any]
T = TypeVar("T")


class SiteFailure(AssertionError):
    """The site did not do what the fixture needs; carries what it printed."""


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    secret: str
    name: str
    tenant: str
    environment: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("appliance", timeout=CALL_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(CALL_S)
        self.sock.connect(str(self._path))


def descendants(pid: int) -> list[int]:
    """Children of a process, their children, and so on."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


class Site:
    """One home and the process that serves it."""

    def __init__(
        self, folder: Path, *, settings: Mapping[str, str] | None = None, with_agent: bool = False
    ) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.stdout = folder / "serve.stdout"
        self.stderr = folder / "serve.stderr"
        self.settings = dict(settings or {})
        self.with_agent = with_agent
        self.listen = "127.0.0.1:0"
        self.base_url = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    # the process

    @property
    def environ(self) -> dict[str, str]:
        """Settings of the caller's own shell stay outside."""
        rest = {name: text for name, text in os.environ.items() if not name.startswith("CIC_")}
        return {**rest, **self.settings}

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "appliance.cli", "--home", str(self.home)]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.base_url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def init(self) -> None:
        self.cic("init")

    def start(self) -> None:
        """Serve, and return when the appliance says that it is ready."""
        agent = ["--with-agent"] if self.with_agent else []
        serve = [*self.command, "serve", *agent, "--listen", self.listen]
        with self.stdout.open("ab") as out, self.stderr.open("ab") as err:
            begin = out.tell()
            # As from a shell with few open files and core files allowed: the rest is up to it.
            limits = "ulimit -S -n 1024; ulimit -c unlimited 2>/dev/null; "
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", limits + 'exec "$@"', "sh", *serve],
                stdout=out,
                stderr=err,
                env=self.environ,
                start_new_session=True,
            )
        line = self.until(lambda: self._ready_line(begin), START_S, "a line `ready URL`")
        self.base_url = line.split()[1]

    def _ready_line(self, begin: int) -> str | None:
        assert self._process is not None
        if (code := self._process.poll()) is not None:
            raise SiteFailure(f"`cic serve` ended with {code}\n{self.printed()}")
        text = self.stdout.read_bytes()[begin:].decode()
        return next((line for line in text.splitlines(True) if line.startswith("ready ")), None)

    def stop(self) -> int:
        """SIGTERM, and the exit code once it has drained."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise SiteFailure(f"SIGTERM did not end `cic serve`\n{self.printed()}") from None
        self._process = None
        return code

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """The exit code, when it ends by itself."""
        assert self._process is not None
        code = self._process.wait(STOP_S)
        self._process = None
        return code

    def kill(self) -> None:
        """kill -9 of the appliance, its agent and their engines."""
        if self._process is not None:
            for pid in [self._process.pid, *descendants(self._process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(STOP_S)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def printed(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}"
            for path in (self.stdout, self.stderr)
            if path.exists()
        )

    def memory_bytes(self) -> int:
        """Resident memory of the serving process."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def sockets_open(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    # the command line

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.command, *arguments],
            capture_output=True,
            text=True,
            env=self.environ,
            timeout=60,
            check=False,
        )
        if check and done.returncode:
            raise SiteFailure(f"{done.args}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def cic(self, *arguments: str) -> Any:
        """What the command printed with --json."""
        printed = self.run("--json", *arguments).stdout
        return json.loads(printed) if printed.strip() else None

    # the admin API

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        connection = _UnixConnection(self.home / "run" / "admin.sock")
        try:
            data = None if body is None else json.dumps(body).encode()
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise SiteFailure(f"{method} {path}: {answer.status} {content!r}")
        return content

    def admin(self, method: str, path: str, body: object = None) -> Any:
        content = self.ask(method, path, body)
        return json.loads(content) if content.strip() else None

    def tenant(self, name: str | None = None, plan: str = "enterprise") -> str:
        name = name or f"tenant-{next(self._numbers)}"
        self.admin("POST", "/v1/tenants", {"name": name, "plan": plan})
        return name

    def environment(self, tenant: str, name: str = "dev", **more: object) -> str:
        self.admin("POST", "/v1/environments", {"name": name, "tenant": tenant, **more})
        return name

    def key(
        self,
        *,
        tenant: str | None = None,
        environment: str | None = None,
        limits: Mapping[str, int] | None = None,
        **more: object,
    ) -> Key:
        """A key that the endpoint accepts already; of a tenant of its own unless one is named."""
        tenant = tenant or self.tenant()
        environment = environment or self.environment(tenant)
        name = f"key-{next(self._numbers)}"
        body = {"tenant": tenant, "environment": environment, "name": name, **more}
        made = self.admin("POST", "/v1/keys", {**body, "limits": dict(limits or {})})
        key = Key(made["id"], made["key"], name, tenant, environment)
        self.until(lambda: self.get("/models", key)[0] == 200, CALL_S, "the key to be accepted")
        return key

    def deployment(self, name: str, url: str, *, wait: bool = True, **more: object) -> Row:
        """A deployment of an external engine, ready unless told not to wait."""
        body = {"name": name, "engine": "external", "url": url, **more}
        made: Row = self.admin("POST", "/v1/deployments", body)
        return self.wait_ready(name) if wait else made

    def wait_ready(self, name: str, deadline_s: float = START_S) -> Row:
        def ready() -> Row | None:
            row: Row = self.admin("GET", f"/v1/deployments/{name}")
            if row["state"] == "failed":
                raise SiteFailure(f"deployment {name} failed: {row['reason']}")
            return row if row["state"] == "ready" else None

        return self.until(ready, deadline_s, f"deployment {name} to be ready")

    def ledger(self, since: int = 0) -> list[Row]:
        lines = self.ask("GET", f"/v1/ledger?since={since}").splitlines()
        return [json.loads(line) for line in lines if line.strip()]

    def record(self, request_id: str, deadline_s: float = CALL_S) -> Row:
        """The ledger's record of a request. More than one is a failure."""

        def found() -> Row | None:
            rows = [row for row in self.ledger() if row["request_id"] == request_id]
            if len(rows) > 1:
                raise SiteFailure(f"{len(rows)} records of {request_id}: {rows}")
            return rows[0] if rows else None

        return self.until(found, deadline_s, f"a ledger record of {request_id}")

    def status(self) -> Row:
        row: Row = self.admin("GET", "/v1/status")
        return row

    def wait_idle(self, deadline_s: float = CALL_S) -> None:
        """Nothing runs, nothing is queued, nothing is held."""

        def idle() -> bool:
            status = self.status()
            return not (status["requests_running"] or status["requests_queued"])

        self.until(idle, deadline_s, "the site to be idle")

    # the endpoint, for what needs no client library

    def get(self, path: str, key: Key) -> tuple[int, bytes]:
        return self.call("GET", path, None, key)[::2]

    def post(
        self, path: str, body: object, key: Key, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        return self.call("POST", path, json.dumps(body).encode(), key, headers)

    def call(
        self,
        method: str,
        path: str,
        data: bytes | None,
        key: Key | None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers with names in lower case, and the whole body."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        sent = dict(headers or {})
        if key is not None:
            sent |= key.bearer
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path if path.startswith("//") else "/v1" + path, data, sent)
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, names, answer.read()
        finally:
            connection.close()

    def new_request_id(self) -> str:
        return f"test-{os.getpid()}-{next(self._numbers)}"

    def until(self, wanted: Callable[[], T | None], deadline_s: float, what: str) -> T:
        """The first true value of `wanted()`, asked until the deadline; then SiteFailure."""
        until = time.monotonic() + deadline_s
        while not (found := wanted()):
            if time.monotonic() > until:
                raise SiteFailure(f"waited {deadline_s} s for {what}\n{self.printed()}")
            time.sleep(POLL_S)
        return found


@contextlib.contextmanager
def running_site(
    folder: Path | None = None,
    *,
    settings: Mapping[str, str] | None = None,
    with_agent: bool = False,
) -> Iterator[Site]:
    """A site that serves until the block ends. Without `folder` in a short-lived one of its own."""
    own = None
    if folder is None:
        # Short, so that the sockets' paths fit into sun_path.
        folder = own = Path(tempfile.mkdtemp(prefix="cl-"))
    site = Site(folder, settings=settings, with_agent=with_agent)
    try:
        site.init()
        site.start()
        yield site
        site.stop()
    finally:
        site.kill()
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)
