"""Joining, from the node's side: to whom it says what, and when it renews."""

import asyncio
import datetime
import ssl
import time

import pytest
from aiohttp import web

from agent import joining
from agent.errors import ApplianceAway, ApplianceRefused, BadToken, WrongSite
from agent.identity import Identity, Life, fresh_key, load_identity, read_ca, save_identity
from agent.renewal import Renewal, renewal_s
from appliance.domain.tls_names import APPLIANCE_NAME
from appliance.wire.join import Joined, Token
from tests.fakes.certificates import Authority
from tests.fakes.clock import ManualClock

SECRET = "5ec2e7" * 10


class Server:
    """Says what it is told to, over TLS, and writes down every byte of what it hears."""

    def __init__(self, papers, ca_pem):
        self.papers = papers
        self.ca_pem = ca_pem
        self.heard = []
        self.answers = {}
        self.base = ""
        self._runner = None

    async def start(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.papers.file)
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
        self.base = f"https://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self):
        await self._runner.cleanup()

    @property
    def paths(self):
        return [path for path, _ in self.heard]

    def knows(self, text):
        return any(text.encode() in said for _, said in self.heard)

    async def _answer(self, request):
        said = b"".join(name + value for name, value in request.raw_headers)
        said += request.path_qs.encode() + await request.read()
        self.heard.append((request.path, said))
        if request.path in self.answers:
            return self.answers[request.path]()
        return web.Response(text=self.ca_pem)


@pytest.fixture
def ours(tmp_path):
    return Authority(tmp_path, "site")


@pytest.fixture
def theirs(tmp_path):
    return Authority(tmp_path, "thief")


@pytest.fixture
async def serve():
    started = []

    async def start(papers, ca_pem):
        server = Server(papers, ca_pem)
        await server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        await server.stop()


def token_for(authority):
    return Token(
        token_id="aa" * 8, secret=SECRET, ca_sha256=read_ca(authority.file.read_text()).sha256
    )


async def try_to_join(server, token):
    return await joining.join(server.base, token, "", "host", fresh_key().csr_pem)


async def test_a_wrong_ca_ends_it_before_anything_is_told(serve, ours, theirs):
    server = await serve(theirs.appliance(), theirs.file.read_text())
    with pytest.raises(WrongSite, match="not sent"):
        await try_to_join(server, token_for(ours))
    assert server.paths == ["/node/v1/ca"]
    assert not server.knows(SECRET)
    assert not server.knows("aa" * 8)
    assert not server.knows(token_for(ours).ca_sha256)


@pytest.mark.parametrize("order", ["ours first", "theirs first", "between", "ours alone"])
async def test_the_right_ca_in_the_wrong_hands_is_of_no_use(serve, ours, theirs, order):
    """Anybody can show the site's CA, which is public, and hide one of his own with it."""
    mine, other = ours.file.read_text(), theirs.file.read_text()
    shown = {
        "ours first": mine + other,
        "theirs first": other + mine,
        "between": "junk\n" + mine + "junk\n" + other,
        "ours alone": mine,
    }[order]
    server = await serve(theirs.appliance(), shown)
    with pytest.raises(WrongSite):
        await try_to_join(server, token_for(ours))
    assert server.paths == ["/node/v1/ca"]
    assert not server.knows(SECRET)


async def test_a_node_of_the_site_is_not_its_appliance(serve, ours):
    """Its certificate is of the right CA, with another name."""
    server = await serve(ours.node("node_1"), ours.file.read_text())
    with pytest.raises(WrongSite):
        await try_to_join(server, token_for(ours))
    assert not server.knows(SECRET)


async def test_the_token_goes_to_the_appliance_without_its_last_part(serve, ours):
    server = await serve(ours.appliance(), ours.file.read_text())
    joined = Joined(node_id="n", node_name="n", site="s", certificate_pem="c", ca_pem="other")
    server.answers["/node/v1/join"] = lambda: web.json_response(
        {name: getattr(joined, name) for name in joined.__struct_fields__}
    )
    got = await try_to_join(server, token_for(ours))
    assert got.node_id == "n"
    assert got.ca_pem == ours.file.read_text()  # what was compared, whatever came later
    assert server.paths == ["/node/v1/ca", "/node/v1/join"]
    assert server.knows(SECRET)
    assert not server.knows(token_for(ours).ca_sha256)


@pytest.mark.parametrize("path", ["/node/v1/ca", "/node/v1/join"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_nobody_is_led_elsewhere(serve, ours, path, status):
    there = await serve(ours.appliance(), ours.file.read_text())
    server = await serve(ours.appliance(), ours.file.read_text())
    server.answers[path] = lambda: web.Response(status=status, headers={"Location": there.base})
    with pytest.raises(ApplianceAway):
        await try_to_join(server, token_for(ours))
    assert there.heard == []


@pytest.mark.parametrize("text", ["", "nonsense", "x" * 100_000])
async def test_who_shows_no_ca_is_no_appliance(serve, ours, text):
    server = await serve(ours.appliance(), text)
    with pytest.raises(ApplianceAway):
        await try_to_join(server, token_for(ours))
    assert not server.knows(SECRET)


@pytest.mark.parametrize(
    ("status", "text"), [(200, ""), (200, "{}"), (500, "oops"), (200, "x" * 300_000)]
)
async def test_an_answer_without_sense_is_no_joining(serve, ours, status, text):
    server = await serve(ours.appliance(), ours.file.read_text())
    server.answers["/node/v1/join"] = lambda: web.Response(status=status, text=text)
    with pytest.raises(ApplianceAway):
        await try_to_join(server, token_for(ours))


async def test_a_no_comes_with_its_code(serve, ours):
    server = await serve(ours.appliance(), ours.file.read_text())
    server.answers["/node/v1/join"] = lambda: web.json_response(
        {"code": "token_refused", "message": "no"}, status=403
    )
    with pytest.raises(ApplianceRefused) as caught:
        await try_to_join(server, token_for(ours))
    assert caught.value.refusal == "token_refused"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "clnt_",
        "clnt_a.b",
        "clnt_a.b." + "0" * 63,
        "clnt_a.b." + "G" * 64,
        "clnt_..",
        "a.b." + "0" * 64,
        "clnt_a.b.c." + "0" * 64,
    ],
)
def test_what_is_no_token_is_told_before_anybody_is_asked(text):
    with pytest.raises(BadToken):
        joining.read_token(text)


@pytest.mark.parametrize(
    "server",
    ["http://h:1", "https://u:p@h:1", "https://h:1/path", "https://", "https://h:99999", "a b"],
)
def test_what_is_no_server_is_told(server):
    with pytest.raises(BadToken):
        joining.base_url(server)


@pytest.mark.parametrize(
    ("server", "base"),
    [
        ("https://gpu.example:9", "https://gpu.example:9"),
        ("gpu.example", "https://gpu.example:8444"),
        ("https://[2001:db8::1]:9/", "https://[2001:db8::1]:9"),
    ],
)
def test_a_server_as_people_write_it(server, base):
    assert joining.base_url(server) == base


def identity_at(folder, ours, server, life_s=60):
    """An identity whose certificate is of the tests' own CA."""
    papers = ours.issue(
        "n1", "n1.node.crosslogic.internal", life=datetime.timedelta(seconds=life_s)
    )
    joined = Joined(
        node_id="nod_1",
        node_name="n1",
        site="s",
        certificate_pem=papers.file.read_text(),
        ca_pem=ours.file.read_text(),
    )
    key = fresh_key()
    identity = save_identity(folder, server, key, joined)
    identity.papers_file.write_bytes(papers.file.read_bytes())
    return identity


def test_an_identity_is_for_this_account_alone_and_found_again(tmp_path, ours):
    identity = identity_at(tmp_path, ours, "https://h:1")
    again = load_identity(tmp_path)
    assert isinstance(again, Identity)
    assert again.about == identity.about
    folder = identity.papers_file.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert load_identity(tmp_path / "elsewhere") is None


def test_renewal_falls_between_a_half_and_two_thirds_of_a_life():
    issued_s, day_s = 1_000_000, 86_400
    life = Life(issued_s - 600, issued_s + day_s)  # certificates begin ten minutes early
    assert renewal_s(life, 0.0) == issued_s + day_s / 2
    assert renewal_s(life, 0.999_999) < issued_s + day_s * 2 / 3
    moments = {renewal_s(life, chance / 100) for chance in range(100)}
    assert len(moments) == 100  # nodes that joined together do not come back together
    short = Life(issued_s - 600, issued_s + 60)
    assert issued_s + 30 <= renewal_s(short, 0.5) <= issued_s + 40


@pytest.mark.parametrize(("past_s", "path"), [(-10, "renew"), (10, "rejoin")])
async def test_before_the_end_it_renews_and_after_it_rejoins(tmp_path, serve, ours, past_s, path):
    server = await serve(ours.appliance(), "")
    identity = identity_at(tmp_path, ours, server.base)
    clock = ManualClock((identity.life().end_s + past_s) * 10**9)
    renewal = Renewal(identity, clock, lambda: 0.0, lambda: None)
    task = asyncio.create_task(renewal.run())
    async with asyncio.timeout(10):
        while not server.heard:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert server.paths[0] == f"/node/v1/{path}"


async def test_a_clock_that_is_ahead_does_not_make_it_renew_without_end(
    tmp_path, ours, monkeypatch
):
    """Every certificate it gets is old by its own clock."""
    identity = identity_at(tmp_path, ours, "https://127.0.0.1:1")
    tries = []

    async def gets_one(_identity):
        tries.append(1)

    monkeypatch.setattr("agent.renewal.renew", gets_one)
    clock = ManualClock((identity.life().end_s - 1) * 10**9)
    task = asyncio.create_task(Renewal(identity, clock, lambda: 0.0, lambda: None).run())
    await asyncio.sleep(0.3)
    assert tries == [1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_full_disk_does_not_end_the_agent(tmp_path, ours, monkeypatch):
    identity = identity_at(tmp_path, ours, "https://127.0.0.1:1")
    tries = []

    async def full(_identity):
        tries.append(time.monotonic())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.renewal.renew", full)
    monkeypatch.setattr("agent.renewal._RETRY_S_MIN", 0.01)
    clock = ManualClock((identity.life().end_s - 1) * 10**9)
    task = asyncio.create_task(Renewal(identity, clock, lambda: 0.0, lambda: None).run())
    async with asyncio.timeout(10):
        while len(tries) < 3:
            await asyncio.sleep(0.01)
            assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_the_name_of_the_appliance_is_fixed():
    assert APPLIANCE_NAME == "appliance.crosslogic.internal"  # nodes in the field look for it
