"""What stands between the load and the engine: nginx, vllm-router, and the appliance itself."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.site import Site, running_site

ROOT = Path(__file__).resolve().parents[2]
ROUTER = ROOT / ".venv-bench" / "bin" / "vllm-router"
START_S = 60.0
STOP_S = 10.0
# High enough never to refuse, so that every layer is counted and none is felt.
NEVER_REACHED = (
    "--rpm",
    "1000000000",
    "--tpm",
    "1000g",
    "--tpd",
    "1000g",
    "--concurrency",
    "1000000",
)

_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_buffer_size 256k;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream engine {{
    server 127.0.0.1:{engine}; keepalive 256; keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy: its port, the root of its processes, what its requests must carry."""

    name: str
    port: int
    pid: int
    headers: tuple[str, ...] = ()
    site: Site | None = None

    def cpu_ns(self) -> int:
        """CPU time of all its threads so far, from /proc/PID/task/TID/schedstat (first field)."""
        total = 0
        for pid in _tree(self.pid):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    total += int((task / "schedstat").read_text().split()[0])
        return total

    def memory_bytes(self) -> int:
        """Resident memory of all its processes."""
        total = 0
        for pid in _tree(self.pid):
            status = Path(f"/proc/{pid}/status").read_text()
            total += int(status.split("VmRSS:")[1].split()[0]) * 1024
        return total


def _tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    return found


@contextlib.contextmanager
def nginx(engine: int) -> Iterator[Proxy]:
    """`proxy_pass` with kept connections and no buffering: what a plain reverse proxy costs."""
    # Debian keeps it where only root's PATH looks.
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "nginx is not installed"
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="cl-bench-") as folder:
        file = Path(folder) / "nginx.conf"
        file.write_text(_NGINX.format(folder=folder, engine=engine, port=port))
        with running([program, "-p", folder, "-c", str(file)], port) as pid:
            yield Proxy("nginx", port, pid)


@contextlib.contextmanager
def vllm_router(engine: int) -> Iterator[Proxy]:
    """The Rust router of the vLLM project, with its cheapest policy: there is one engine."""
    port = free_port()
    command = [str(ROUTER), "--worker-urls", f"http://127.0.0.1:{engine}"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--policy", "round_robin"]
    command += ["--prometheus-port", str(free_port()), "--log-level", "error"]
    with running(command, port) as pid:
        yield Proxy("vllm-router", port, pid)


@contextlib.contextmanager
def gateway(engine: int) -> Iterator[Proxy]:
    """The appliance as it is delivered: keys, four layers of limits, ledger, all on."""
    with running_site() as site:
        site.deployment("bench", f"http://127.0.0.1:{engine}/v1")
        key = site.key()
        site.cic("limit", "set", "--global", *NEVER_REACHED)
        of_tenant = ("--tenant", key.tenant)
        of_environment = (*of_tenant, "--env", key.environment)
        for scope in (of_tenant, of_environment, (*of_environment, "--key", key.name)):
            site.cic("limit", "set", *scope, *NEVER_REACHED)
        headers = (f"Authorization: Bearer {key.secret}",)
        yield Proxy("gateway", site.address[1], site.pid, headers, site)


PROXIES: dict[str, Callable[[int], contextlib.AbstractContextManager[Proxy]]] = {
    "nginx": nginx,
    "vllm-router": vllm_router,
    "gateway": gateway,
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """The pid of a server that listens on `port`, ended with the block."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_for(port, process)
            yield process.pid
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            process.kill()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"{process.args} ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)
    raise SystemExit(f"{process.args} does not listen on {port} after {START_S:g} s")
