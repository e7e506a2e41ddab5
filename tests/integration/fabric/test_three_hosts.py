"""A gateway, a node and a client on three hosts: join, serve, be cut off, come back."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fakes.certificates import Authority
from tests.integration.fabric.answers import answer_of

PROGRAMS = Path(__file__).parent / "programs"
CANARY = "c4n4ry-0f-a-pr0mpt"
WAIT_S = 60.0


def joined(far_site, far_node, name="n1"):
    """A node that has joined, runs, and is ready."""
    made = far_site.cic("node", "token", "create")
    done = far_node.join(made["server"], made["token"], "--name", name)
    assert done.returncode == 0, done.stdout + done.stderr
    far_node.start()
    far_site.wait_node(name, "ready")
    return made


def deployed(far_site, model, name="m", replicas=1):
    far_site.cic(
        *("deployment", "create", "--name", name, "--engine", "llamacpp", "--model", str(model)),
        *("--replicas", str(replicas), "--parallel", "2", "--context", "1024"),
    )
    far_site.wait_ready(name, WAIT_S)


@contextlib.contextmanager
def wiretap(host, file):
    """What goes through a host's port of the switch, for as long as the block lasts."""
    namespace = ["ip", "netns", "exec", host.switch]
    command = [*namespace, sys.executable, str(PROGRAMS / "listen_in.py"), host.port, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listens\n"
        yield
        process.kill()


@pytest.mark.serial
@pytest.mark.timeout(300)
def test_join_serve_partition_heal(far_site, far_node, lab, chat_model, tmp_path):
    made = joined(far_site, far_node)
    server = urlsplit(made["server"])
    assert (server.scheme, server.hostname) == ("https", lab["gateway"].address)
    assert made["token"] in made["command"]
    assert made["server"] in made["command"]
    deployed(far_site, chat_model)
    key = far_site.key()

    # The completion crosses the hosts, and nobody between gateway and node can read it.
    to_node, to_client = tmp_path / "node.frames", tmp_path / "client.frames"
    with wiretap(lab["node"], to_node), wiretap(lab["client"], to_client):
        status, body = far_site.completed(key, "m", messages=[{"role": "user", "content": CANARY}])
    assert status == 200, body
    assert json.loads(body)["usage"]["completion_tokens"] > 0
    assert CANARY.encode() in to_client.read_bytes()  # the client speaks HTTP here
    frames = to_node.read_bytes()
    assert len(frames) > 1_000
    assert CANARY.encode() not in frames
    assert key.secret.encode() not in frames

    # Nobody else reaches the engine: it listens to its own host, and the door takes nobody.
    (replica,) = far_site.replicas("m")
    host, _, door_port = replica["address"].rpartition(":")
    assert host == lab["node"].address
    assert listening(lab["node"]) >= {(lab["node"].address, int(door_port))}
    others = {address for address, _ in listening(lab["node"])} - {lab["node"].address}
    assert others <= {"127.0.0.1", "[::1]"}
    assert knocks(lab["client"], host, int(door_port)) == "refused"

    # Cut off: no request is answered by it, none waits for ever, and the engine runs on.
    engines = far_node.engines()
    assert engines
    lab["node"].cut_off()
    statuses = [far_site.completed(key, "m")[0] for _ in range(3)]
    assert set(statuses) == {503}
    far_site.wait_node("n1", "unreachable")
    status, body = far_site.completed(key, "m")
    assert (status, json.loads(body)["error"]["code"]) == (503, "model_unavailable")
    assert far_node.engines() == engines
    assert far_site.replicas("m")[0]["state"] == "unreachable"

    # Healed: everything returns, and it is the same engine.
    lab["node"].heal()
    far_site.wait_node("n1", "ready")
    far_site.wait_ready("m", WAIT_S)
    assert far_site.completed(key, "m")[0] == 200
    assert far_node.engines() == engines
    assert far_site.replicas("m")[0]["restarts"] == 0

    # The agent dies: door and engine have nothing to do with it, and the next one finds both.
    far_node.kill()
    assert far_site.completed(key, "m")[0] == 200
    far_node.start()
    far_site.until(lambda: "door adopted" in far_node.log(), WAIT_S, "the door to be found")
    far_site.wait_node("n1", "ready")
    far_site.wait_ready("m", WAIT_S)
    assert far_site.replicas("m")[0]["address"] == replica["address"]
    assert far_site.completed(key, "m")[0] == 200
    assert far_node.engines() == engines

    # The gateway goes and comes: the node finds it again at the port it knows.
    far_site.restart()
    far_site.wait_ready("m", WAIT_S)
    assert far_site.completed(key, "m")[0] == 200
    assert far_node.engines() == engines

    # The agent's end takes its engines and the door with it.
    assert far_node.end() == 0
    assert far_node.engines() == []
    assert {port for _, port in listening(lab["node"])} == set()


@pytest.mark.serial
@pytest.mark.timeout(300)
def test_a_node_that_is_cut_off_is_stood_in_for(far_site, far_node, lab, chat_model):
    """Requests go to the replica on the other host: those that come, and those under way."""
    near = subprocess.Popen(
        [*far_site.command, "agent", "--name", "near"], stderr=subprocess.DEVNULL
    )
    try:
        far_site.until(lambda: "near" in names(far_site), WAIT_S, "the near node")
        joined(far_site, far_node, "far")
        far_site.wait_node("near", "ready")
        deployed(far_site, chat_model, replicas=2)
        nodes = {replica["node"] for replica in far_site.replicas("m")}
        assert nodes == {"near", "far"}
        key = far_site.key()
        before = [far_site.chat(key, "m") for _ in range(4)]
        assert {finish(process) for process in before} == {200}
        lab["node"].cut_off()
        during = [far_site.chat(key, "m") for _ in range(8)]
        assert [finish(process) for process in during] == [200] * 8
        far_site.wait_node("far", "unreachable")
        after = [far_site.chat(key, "m") for _ in range(4)]
        assert [finish(process) for process in after] == [200] * 4
        lab["node"].heal()
        far_site.wait_node("far", "ready")
        far_site.wait_ready("m", WAIT_S)
        far_site.wait_idle()
        # Every answered request is in the ledger once.
        served = [row for row in far_site.ledger() if row["status"] == "ok"]
        assert len(served) == 16
    finally:
        near.terminate()
        near.wait(WAIT_S)


@pytest.mark.timeout(180)
def test_a_wrong_ca_ends_the_joining_before_the_token_is_sent(far_site, far_node, lab, tmp_path):
    made = far_site.cic("node", "token", "create")
    secret = made["token"].split(".")[1]

    # The right gateway, with a hash that is not its CA's.
    head, _, digest = made["token"].rpartition(".")
    wrong = ("0" if digest[0] != "0" else "1") + digest[1:]
    done = far_node.join(made["server"], f"{head}.{wrong}", "--name", "n1")
    assert done.returncode != 0
    assert "CA" in done.stderr
    assert state_of(far_site, made) == "unused"

    # Somebody else in its place: with a CA of his own; with the site's, which is no secret; with
    # the site's and his own behind it.
    foreign = Authority(tmp_path, "foreign")
    own = foreign.issue("server", "appliance.crosslogic.internal")
    real = far_site.home / "secrets" / "site-ca.pem"
    both = tmp_path / "both.pem"
    both.write_bytes(real.read_bytes() + foreign.file.read_bytes())
    for ca_file in (foreign.file, real, both):
        heard = tmp_path / f"heard-{ca_file.name}"
        with impostor(lab["gateway"], own.file, ca_file, heard) as port:
            server = f"https://{lab['gateway'].address}:{port}"
            done = far_node.join(server, made["token"], "--name", "n1")
            assert done.returncode != 0
            said = heard.read_bytes()
            assert b"/node/v1/ca" in said  # it was asked
            assert secret.encode() not in said
            assert digest.encode() not in said
    assert state_of(far_site, made) == "unused"

    # The token is as good as ever.
    done = far_node.join(made["server"], made["token"], "--name", "n1")
    assert done.returncode == 0, done.stderr
    assert state_of(far_site, made) == "used"


@pytest.mark.timeout(180)
def test_a_used_an_expired_and_a_foreign_token_are_refused(far_site, far_node, tmp_path):
    used = far_site.cic("node", "token", "create")
    assert far_node.join(used["server"], used["token"], "--name", "n1").returncode == 0
    short = far_site.cic("node", "token", "create", "--ttl", "1s")
    fresh = far_site.cic("node", "token", "create")
    head, secret, digest = fresh["token"].split(".")
    guessed = f"{head}.{'0' * len(secret)}.{digest}"
    unknown = f"clnt_{'0' * 16}.{secret}.{digest}"
    far_site.until(
        lambda: state_of(far_site, short) == "expired", WAIT_S, "the short token to expire"
    )
    for token in (used["token"], short["token"], guessed, unknown, "clnt_nothing", ""):
        again = type(far_node)(tmp_path / "other", far_node.host)
        done = again.join(fresh["server"], token, "--name", "n2")
        assert done.returncode != 0, token
        assert done.stderr.strip(), token
        assert secret not in done.stderr
    assert names(far_site) == {"n1"}


@pytest.mark.timeout(180)
def test_a_node_speaks_for_itself_alone_and_nobody_without_a_certificate(
    far_site, far_node, lab, tmp_path
):
    homes, ids = {}, {}
    for name in ("n1", "n2"):
        made = far_site.cic("node", "token", "create")
        homes[name] = type(far_node)(tmp_path / name, far_node.host)
        assert homes[name].join(made["server"], made["token"], "--name", name).returncode == 0
        ids[name] = far_site.node(name)["id"]
    server = urlsplit(made["server"])
    assert server.hostname == lab["gateway"].address

    def said(papers, *messages):
        """What the node API answers to who shows these papers."""
        ca_file = homes["n1"].identity / "site-ca.pem"
        there = (server.hostname, server.port, "appliance.crosslogic.internal", ca_file)
        return spoken(lab["node"], there, papers, *messages)

    own, foreign = homes["n1"].identity / "node.pem", homes["n2"].identity / "node.pem"
    hello = post("hello", HELLO)
    beat = {name: post("heartbeat", {"node_id": ids[name], "replicas": []}) for name in ids}
    assert [a["status"] for a in said(own, hello, beat["n1"])] == [200, 200]
    assert json.loads(said(own, hello)[0]["body"])["node_id"] == ids["n1"]
    assert [a["status"] for a in said(foreign, hello, beat["n2"])] == [200, 200]
    (answer,) = said(own, beat["n2"])
    assert (answer["status"], json.loads(answer["body"])["code"]) == (403, "foreign_node")
    elsewhere = {
        "replica_id": "rep_0",
        "deployment_id": "dep_0",
        "generation": 1,
        "state": "ready",
        "host": lab["gateway"].address,
        "port": 22,
    }
    report = post("heartbeat", {"node_id": ids["n1"], "replicas": [elsewhere]})
    assert said(own, report)[0]["status"] == 400

    # Without a certificate of the site nobody says anything.
    assert [a["status"] for a in said(None, hello, beat["n1"])] == [401, 401]
    stranger = Authority(tmp_path, "stranger").appliance().file
    assert "error" in said(stranger, hello)[0]

    # Revoked: at once, while the other goes on.
    far_site.cic("node", "revoke", "n1", "--yes")
    assert said(own, beat["n1"])[0]["status"] == 401
    assert said(foreign, beat["n2"])[0]["status"] == 200


HELLO = {
    "node_name": "whatever",
    "agent_version": "1",
    "boot_id": "b",
    "cores": 1,
    "memory_bytes": 1,
    "engines": [],
}


def post(name, body):
    return {"method": "POST", "path": f"/node/v1/{name}", "body": body}


def spoken(host, there, papers, *messages):
    arguments = [*map(str, there), *([] if papers is None else [str(papers)])]
    done = subprocess.run(
        host.command(sys.executable, PROGRAMS / "speak.py", *arguments),
        input=json.dumps(messages),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )
    return json.loads(done.stdout)


def names(site):
    return {row["name"] for row in site.cic("node", "list")}


def state_of(site, made):
    tokens = {row["id"]: row["state"] for row in site.cic("node", "token", "list")}
    return tokens[made["id"]]


def finish(process):
    with process:
        return answer_of(process)[0]


def listening(host):
    """Addresses and ports that something listens to on a host, IPv4 and IPv6."""
    found = set()
    for line in host.run("ss", "-Htln").stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        found.add((address, int(port)))
    return found


def knocks(host, address, port):
    """How a door takes a TLS connection without a certificate."""
    program = (
        "import socket, ssl, sys\n"
        "c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n"
        "c.check_hostname, c.verify_mode = False, ssl.CERT_NONE\n"
        "w = c.wrap_socket(socket.create_connection((sys.argv[1], int(sys.argv[2])), 5))\n"
        "w.sendall(b'GET /v1/models HTTP/1.1\\r\\nHost: e\\r\\n\\r\\n')\n"
        "print('answered' if w.recv(1) else 'refused')\n"
    )
    done = host.run(sys.executable, "-c", program, address, str(port))
    return done.stdout.strip() or ("refused" if "SSL" in done.stderr else done.stderr)


@contextlib.contextmanager
def impostor(host, pem, ca_file, heard):
    """Somebody who listens in the gateway's place, and writes down what he is told."""
    command = host.command(
        sys.executable, PROGRAMS / "impostor.py", host.address, pem, ca_file, heard
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()
