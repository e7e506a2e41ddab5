"""An auditor with a copy of a home needs no appliance that runs."""

import contextlib
import sqlite3
from pathlib import Path

from appliance.wire.command import ExitCode
from tests.fakes.admin_site import served
from tests.fakes.command_line import cic


def test_a_running_and_a_stopped_site_have_the_same_audit(tmp_path: Path) -> None:
    questions = [("audit", "list"), ("audit", "list", "--since", "1"), ("audit", "verify")]
    with served(tmp_path):
        for name in ("acme", "bolt"):
            assert cic("--home", tmp_path, "tenant", "create", name).code == ExitCode.OK
        running = [cic("--home", tmp_path, "--json", *question) for question in questions]
    assert "acme" in running[0].out
    assert [cic("--home", tmp_path, "--json", *question) for question in questions] == running

    with contextlib.closing(sqlite3.connect(tmp_path / "registry.db")) as connection:
        connection.execute("DROP TRIGGER audit_keeps_content")
        connection.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 2")
        connection.commit()
    done = cic("--home", tmp_path, "--json", "audit", "verify")
    assert done.code == ExitCode.DAMAGED
    assert "entry 2 " in done.json["problems"][0]
