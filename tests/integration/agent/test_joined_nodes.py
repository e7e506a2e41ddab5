"""Nodes that join a site with real processes: renew, come back after the end, are revoked."""

import json
import signal
import subprocess
import sys
import time

import pytest

from agent.identity import load_identity
from tests.fakes.site import running_site

WAIT_S = 60.0
LIFE_S = 60
SETTINGS = {
    "CIC_NODES_CERTIFICATE_S": str(LIFE_S),
    "CIC_NODES_ADVERTISE": "127.0.0.1",
    "CIC_FLEET_HEARTBEAT_S": "0.3",
    "CIC_FLEET_NODE_LOST_S": "3",
}


class Machine:
    """A home of its own, as on another host."""

    def __init__(self, folder, name, site):
        self.name = name
        self.site = site
        self.folder = folder / name
        self.folder.mkdir()
        self.home = self.folder / "home"
        self.errors = self.folder / "agent.stderr"
        self.process = None

    @property
    def identity(self):
        found = load_identity(self.home / "agent")
        assert found is not None
        return found

    def command(self, *arguments):
        return [sys.executable, "-m", "appliance.cli", "--home", str(self.home), *arguments]

    def join(self, made, *more):
        sent = ("--server", made["server"], "--token", made["token"], *more)
        done = subprocess.run(
            self.command("--json", "agent", "join", *sent),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            env=self.site.environ,
            check=False,
        )
        return done.returncode, json.loads(done.stdout)

    def start(self):
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                self.command("agent"), stderr=errors, env=self.site.environ
            )

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(WAIT_S) == 0
            self.process = None

    def said(self, event):
        """How often the agent's log tells of an event."""
        lines = self.errors.read_text().splitlines() if self.errors.exists() else []
        return sum(json.loads(line)["event"] == event for line in lines if line.startswith("{"))

    def certificates(self):
        return self.site.cic("node", "certificates", self.name)

    def wait(self, state):
        def reached():
            rows = {row["name"]: row for row in self.site.cic("node", "list")}
            return rows[self.name]["state"] == state

        self.site.until(reached, WAIT_S, f"{self.name} to be {state}")


@pytest.fixture
def site():
    with running_site(settings=SETTINGS) as site:
        yield site


@pytest.fixture
def machine(tmp_path, site):
    machines = []

    def new(name):
        machines.append(Machine(tmp_path, name, site))
        return machines[-1]

    yield new
    for one in machines:
        if one.process is not None:
            one.process.kill()
            one.process.wait()


def joined(site, machine, name):
    new = machine(name)
    code, facts = new.join(site.cic("node", "token", "create", "--node", name))
    assert (code, facts["node"]) == (0, name)
    return new


@pytest.mark.timeout(300)
def test_renewed_while_on_let_in_again_after_the_end_and_out_when_revoked(site, machine):
    began = time.time()
    on = joined(site, machine, "on")
    off = joined(site, machine, "off")
    assert {row["state"] for row in site.cic("node", "list")} == {"joining"}
    on.start()
    on.wait("ready")
    papers = on.identity.papers_file.read_bytes()
    first = on.certificates()
    assert [row["state"] for row in first] == ["good"]

    # Renewed in its time, with another key; the node never was away.
    site.until(lambda: on.said("certificate renewed") == 1, LIFE_S, "the certificate to be renewed")
    assert LIFE_S / 2 - 2 <= time.time() - began <= LIFE_S * 2 / 3 + 10
    assert on.identity.papers_file.read_bytes() != papers
    assert len(on.certificates()) == 2
    on.wait("ready")

    # The other one slept past the end of its certificate.
    time.sleep(max(0.0, off.identity.life().end_s + 1 - time.time()))
    assert [row["state"] for row in off.certificates()] == ["expired"]
    off.start()
    off.wait("ready")
    assert off.said("node rejoined") == 1
    assert on.said("appliance away") == 0  # past the end of its first certificate

    # After a restart of the appliance both find it where they know it.
    site.restart()
    on.wait("ready")
    off.wait("ready")

    # Denied: at once, and for good.
    denied = site.cic("node", "revoke", "on", "--yes")
    assert denied["node"] == "on"
    assert denied["certificates"] >= 2
    on.wait("joining")  # until it joins again
    assert {row["state"] for row in on.certificates()} <= {"revoked", "expired"}
    off.wait("ready")
    on.stop()

    # It comes back with a token, as the same node.
    before = on.identity.node_id
    made = site.cic("node", "token", "create", "--node", "on")
    code, facts = on.join(made)
    assert (code, facts["error"]["code"]) == (4, "command_failed")  # not by mistake
    code, facts = on.join(made, "--force")
    assert (code, facts["node_id"]) == (0, before)
    on.start()
    on.wait("ready")
    for one in (on, off):
        one.stop()
    actions = {row["action"] for row in site.cic("audit", "list") if row["object_kind"] == "node"}
    assert {"join", "renew", "revoke"} <= actions
    secret = made["token"].split(".")[1]
    assert secret not in site.printed() + json.dumps(site.cic("audit", "list"))


@pytest.mark.timeout(120)
def test_refusals_have_codes_that_programs_understand(site, machine):
    made = site.cic("node", "token", "create", "--node", "n1")
    first = machine("n1")
    assert first.join(made)[0] == 0
    other = machine("n2")

    def refused(token, *more):
        code, facts = other.join(made | {"token": token}, *more)
        return code, facts["error"]["code"]

    fresh = site.cic("node", "token", "create", "--node", "n2")["token"]
    head, _, digest = fresh.rpartition(".")
    assert refused(made["token"]) == (1, "token_refused")
    assert refused("clnt_nothing") == (2, "bad_token")
    assert refused(f"{head}.{digest[::-1]}") == (1, "wrong_site")
    assert refused(fresh, "--name", "n3") == (1, "token_refused")
    revoked = site.cic("node", "token", "create")
    site.cic("node", "token", "revoke", revoked["id"])
    assert refused(revoked["token"]) == (1, "token_refused")
    assert not (other.home / "agent" / "identity" / "identity.json").exists()
    site.stop()
    assert refused(fresh) == (5, "appliance_away")
    site.start()
    assert other.join(made | {"token": fresh})[0] == 0
    states = [row["state"] for row in site.cic("node", "token", "list")]
    assert sorted(states) == ["revoked", "used", "used"]
