"""The socket itself: who may, who did, and what lies in its way."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from appliance.admin.errors import ListenFailed, SocketInUse
from appliance.admin.peer import account
from appliance.admin.server import bind_socket
from appliance.wire.admin import AuditEntry
from tests.fakes.admin_site import served

CREATE_TENANT = """
import http.client, os, socket, sys
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
connection = http.client.HTTPConnection("appliance")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(sys.argv[1])
headers = {"Content-Type": "application/json"}
connection.request("POST", "/v1/tenants", b'{"name": "other"}', headers)
sys.exit(connection.getresponse().status != 201)
"""


def test_the_file_is_for_owner_and_group_alone_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o000, 0o077):
        before = os.umask(umask)
        try:
            listener = bind_socket(tmp_path / f"{umask:o}" / "admin.sock")
        finally:
            os.umask(before)
        listener.close()
        assert stat.S_IMODE((tmp_path / f"{umask:o}" / "admin.sock").stat().st_mode) == 0o660


def test_the_audit_names_the_account_that_the_kernel_names(tmp_path: Path) -> None:
    with served(tmp_path) as site:
        site.client.post("/v1/tenants", json={"name": "mine"}, headers={"from": "0:root"})
        entries = audit_of(site.client.get("/v1/audit").content)
    assert entries[-1].actor == account(os.getuid())
    assert entries[-1].action == "create"
    assert entries[-1].before is None
    assert entries[-1].after["name"] == "mine"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another account")
def test_another_account_is_recorded_as_itself_and_needs_the_files_permission(
    tmp_path: Path,
) -> None:
    uid = 54_321  # no such account here
    for folder in (tmp_path, *tmp_path.parents[:3]):  # three when tests run side by side
        folder.chmod(0o755)
    with served(tmp_path) as site:
        site.home.run.chmod(0o755)
        path = site.home.admin_socket
        command = [sys.executable, "-c", CREATE_TENANT, str(path), str(uid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert "PermissionError" in done.stderr
        os.chown(path, -1, uid)
        subprocess.run(command, timeout=20, check=True)
        entries = audit_of(site.client.get("/v1/audit").content)
    assert entries[-1].actor == f"{uid}:"


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    listener = bind_socket(path)
    listener.listen()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()


def test_a_socket_that_answers_is_left_alone(tmp_path: Path) -> None:
    with served(tmp_path) as site:
        with pytest.raises(SocketInUse):
            bind_socket(site.home.admin_socket)
        assert site.client.get("/healthz").status_code == 200


def test_a_full_queue_of_connections_still_counts_as_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(path))
        busy.listen(0)
        first.connect(str(path))
        with pytest.raises(SocketInUse):
            bind_socket(path)


def test_what_is_no_socket_is_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    path.write_text("precious")
    with pytest.raises(ListenFailed):
        bind_socket(path)
    assert path.read_text() == "precious"


def test_a_folder_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ListenFailed, match="admin socket"):
        bind_socket(tmp_path / "file" / "admin.sock")


def test_a_home_deeper_than_a_socket_address_is_served(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    with served(deep) as site:
        assert len(str(site.home.admin_socket)) > 108
        assert site.client.get("/healthz").status_code == 200


def test_stopping_removes_the_file_but_never_anothers(tmp_path: Path) -> None:
    with served(tmp_path) as site:
        assert site.home.admin_socket.exists()
    assert not site.home.admin_socket.exists()
    with served(tmp_path) as site:
        site.home.admin_socket.unlink()
        successor = bind_socket(site.home.admin_socket)
    assert site.home.admin_socket.exists()
    successor.close()


def audit_of(content: bytes) -> list[AuditEntry]:
    return [msgspec.json.decode(line, type=AuditEntry) for line in content.splitlines()]
