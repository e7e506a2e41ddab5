"""The node API over real TLS on loopback, asked by the agent's own code and by liars."""

import asyncio
import json
import socket
import ssl
import time

import aiohttp
import msgspec
import pytest
from aiohttp import web

from agent import joining
from agent.errors import ApplianceAway, ApplianceRefused, WrongSite
from agent.identity import fresh_key, save_identity
from agent.ways import node_context
from appliance.domain.tls_names import APPLIANCE_NAME
from appliance.fleet import node_api, node_guests
from appliance.fleet.errors import ForeignNode, NoAddress
from appliance.fleet.joining import JoinDesk
from appliance.fleet.node_api import NodeApi
from appliance.security.site_ca import ensure_authority
from appliance.security.site_tls import ApplianceTls
from appliance.settings import Nodes
from appliance.wire.agent import Desired, Heartbeat, Hello, Welcome
from appliance.wire.join import REJOIN_SKEW_S, RejoinRequest, RenewRequest
from appliance.wire.node_tokens import NodeTokenCreate
from tests.fakes.certificates import Authority
from tests.fakes.clock import ManualClock

LIFE_S = 3_600.0
GRACE_S = 600.0
HELLO = Hello(node_name="n", agent_version="1", boot_id="b", cores=1, memory_bytes=1, engines=())


class Desk:
    """Remembers who spoke, and lets each speak for itself alone."""

    def __init__(self):
        self.heard = []

    async def hello(self, hello, origin):
        self.heard.append((hello.node_name, origin))
        return Welcome(node_id=origin.node_id, heartbeat_s=1.0)

    async def heartbeat(self, heartbeat, origin):
        if heartbeat.node_id != origin.node_id:
            raise ForeignNode("another")
        self.heard.append((heartbeat.node_id, origin))
        return Desired(replicas=())


class SiteOfNodes:
    """A desk, the API at it, and machines that join."""

    def __init__(self, folder, registry):
        self.folder = folder
        self.registry = registry
        self.clock = ManualClock(time.time_ns())
        secrets = folder / "secrets"
        secrets.mkdir(mode=0o700)
        self.authority = ensure_authority(secrets, self.clock.wall_ns())
        self.desk = Desk()
        self.api = None
        self.joining = JoinDesk(
            registry=registry,
            authority=self.authority,
            api=self._api,
            settings=Nodes(certificate_s=LIFE_S, rejoin_grace_s=GRACE_S, advertise="127.0.0.1"),
            site="berlin",
            clock=self.clock,
        )
        self.base = ""

    def _api(self, desk):
        tls = ApplianceTls(self.authority, self.clock)
        self.api = NodeApi(
            desk=self.desk,
            joining=desk,
            check=self.registry.node_certificates.check,
            context=tls.for_nodes,
            clock=self.clock,
            others=(("GET", "/node/v1/models/{digest}", self.model),),
        )
        return self.api

    async def model(self, request, held):
        return web.Response(text=held.node_name)

    async def start(self):
        self.base = f"https://127.0.0.1:{await self.api.listen('127.0.0.1', 0)}"

    async def token(self, node=None):
        return await self.joining.token("test", NodeTokenCreate(node=node))

    async def joined(self, name="n1"):
        """The identity of a machine that has joined."""
        made = await self.token(name)
        key = fresh_key()
        joined = await joining.join(
            self.base, joining.read_token(made.token), "", "host", key.csr_pem
        )
        return save_identity(self.folder / name, self.base, key, joined)

    def context(self):
        """Trusts the site, shows nothing."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.authority.pem)
        return context

    async def ask(self, method, path, body=b"", context=None, **more):
        """Status and answer, over a connection of its own."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context or self.context(), force_close=True)
        ) as session:
            return await said(session, self.base, method, path, body, **more)


async def said(session, base, method, path, body=b"", **more):
    async with session.request(
        method, f"{base}/node/v1/{path}", data=body, server_hostname=APPLIANCE_NAME, **more
    ) as response:
        content = await response.read()
        try:
            return response.status, json.loads(content)
        except ValueError:
            return response.status, content


@pytest.fixture
async def site(tmp_path, registry):
    site = SiteOfNodes(tmp_path, registry)
    await site.start()
    yield site
    await site.joining.stop()


def encoded(message):
    return msgspec.json.encode(message)


def beat(node_id):
    return encoded(Heartbeat(node_id=node_id, replicas=()))


async def test_a_machine_joins_and_is_who_its_certificate_says(site):
    identity = await site.joined("n1")
    assert (identity.about.node_name, identity.about.site) == ("n1", "berlin")
    context = node_context(identity)
    status, answer = await site.ask("POST", "hello", encoded(HELLO), context)
    assert (status, answer["node_id"]) == (200, identity.node_id)
    ((name, origin),) = site.desk.heard
    assert (name, origin.node_id, origin.host) == ("n", identity.node_id, "127.0.0.1")
    assert (await site.ask("POST", "heartbeat", beat(identity.node_id), context))[0] == 200
    assert await site.ask("GET", "models/x", context=context) == (200, b"n1")


async def test_what_the_command_says_holds_the_ca_and_the_address(site):
    made = await site.token()
    assert made.token.endswith("." + site.authority.fingerprint)
    assert made.server == site.base
    assert made.command == f"cic agent join --server {made.server} --token {made.token}"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "hello"), ("POST", "heartbeat"), ("POST", "renew"), ("GET", "models/x")],
)
async def test_without_a_certificate_nothing_but_joining(site, method, path):
    status, answer = await site.ask(method, path, b"{}")
    assert (status, answer["code"]) == (401, "no_certificate")
    assert site.desk.heard == []


async def test_a_certificate_of_another_ca_gets_no_answer(site, tmp_path):
    identity = await site.joined()
    papers = Authority(tmp_path, "foreign").node(identity.node_id)
    context = site.context()
    context.load_cert_chain(papers.file)
    with pytest.raises(aiohttp.ClientError):
        await site.ask("POST", "hello", encoded(HELLO), context)
    assert site.desk.heard == []


async def test_a_certificate_of_ours_that_nobody_remembers_is_refused(site, tmp_path):
    """Issued by this CA and not in the registry: of a node that was removed, or of a backup."""
    identity = await site.joined()
    key = fresh_key()
    issued = site.authority.issue_node(key.csr_pem, identity.node_id, time.time_ns(), LIFE_S)
    (tmp_path / "other.pem").write_text(issued.pem + key.key_pem)
    context = site.context()
    context.load_cert_chain(tmp_path / "other.pem")
    status, answer = await site.ask("POST", "hello", encoded(HELLO), context)
    assert (status, answer["code"]) == (401, "certificate_refused")


async def test_a_revoked_node_is_out_also_on_the_connection_it_has(site, registry):
    identity = await site.joined()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=node_context(identity), limit=1)
    ) as session:
        assert (await said(session, site.base, "POST", "hello", encoded(HELLO)))[0] == 200
        await registry.node_certificates.revoke("test", "n1")
        status, answer = await said(session, site.base, "POST", "hello", encoded(HELLO))
        assert (status, answer["code"]) == (401, "certificate_refused")
    with pytest.raises(ApplianceRefused):
        await joining.renew(identity)
    with pytest.raises(ApplianceRefused) as caught:
        await joining.rejoin(identity, int(site.clock.wall_ns() / 1e9))
    assert caught.value.refusal == "certificate_refused"


async def test_a_certificate_that_ends_ends_the_connection_it_opened(site):
    identity = await site.joined()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=node_context(identity), limit=1)
    ) as session:
        assert (await said(session, site.base, "POST", "hello", encoded(HELLO)))[0] == 200
        site.clock.turn(LIFE_S)
        status, answer = await said(session, site.base, "POST", "hello", encoded(HELLO))
    assert (status, answer["code"]) == (401, "certificate_refused")
    assert "expired" in answer["message"]


async def test_a_node_speaks_for_itself_alone(site):
    first, second = await site.joined("n1"), await site.joined("n2")
    status, answer = await site.ask("POST", "heartbeat", beat(second.node_id), node_context(first))
    assert (status, answer["code"]) == (403, "foreign_node")
    assert site.desk.heard == []


async def test_a_used_token_is_refused_with_a_code(site):
    made = await site.token()
    token = joining.read_token(made.token)
    await joining.join(site.base, token, "", "host", fresh_key().csr_pem)
    with pytest.raises(ApplianceRefused) as caught:
        await joining.join(site.base, token, "", "host", fresh_key().csr_pem)
    assert caught.value.refusal == "token_refused"


async def test_renewing_gives_another_key_that_is_good_beside_the_old(site):
    identity = await site.joined()
    before, old = identity.papers_file.read_bytes(), node_context(identity)
    site.clock.turn(60)
    await joining.renew(identity)
    assert identity.papers_file.read_bytes() != before
    for context in (old, node_context(identity)):
        assert (await site.ask("POST", "hello", encoded(HELLO), context))[0] == 200


async def test_who_slept_past_the_end_comes_back_within_the_grace(site):
    identity = await site.joined()
    site.clock.turn(LIFE_S + GRACE_S - 1)
    await joining.rejoin(identity, site.clock.wall_ns() // 10**9)
    assert identity.life().end_s == int(site.clock.wall_ns() / 1e9 + LIFE_S)
    newest, _ = await site.registry.node_certificates.list("n1")
    assert newest.node_id == identity.node_id
    await site.registry.node_certificates.check(newest.serial)


async def test_who_slept_longer_does_not(site):
    identity = await site.joined()
    before = identity.papers_file.read_bytes()
    site.clock.turn(LIFE_S + GRACE_S + 1)
    with pytest.raises(ApplianceRefused) as caught:
        await joining.rejoin(identity, site.clock.wall_ns() // 10**9)
    assert caught.value.refusal == "rejoin_refused"
    assert "forgives" in str(caught.value)
    assert identity.papers_file.read_bytes() == before


@pytest.mark.parametrize("off_s", [-REJOIN_SKEW_S - 2, REJOIN_SKEW_S + 2])
async def test_a_clock_that_is_minutes_off_is_told(site, off_s):
    identity = await site.joined()
    site.clock.turn(LIFE_S + 1)
    with pytest.raises(ApplianceRefused, match="clock"):
        await joining.rejoin(identity, site.clock.wall_ns() // 10**9 + off_s)


async def test_a_certificate_that_was_found_is_nothing_without_its_key(site):
    identity = await site.joined()
    site.clock.turn(LIFE_S + 1)
    now_s = site.clock.wall_ns() // 10**9
    right = identity.rejoin_request(fresh_key(), now_s)
    thief = fresh_key()
    forged = [
        msgspec.structs.replace(right, csr_pem=thief.csr_pem),  # the signature of another request
        msgspec.structs.replace(right, at_s=now_s - 1),  # of another time
        msgspec.structs.replace(right, signature=""),
        msgspec.structs.replace(right, signature="AAAA"),
        msgspec.structs.replace(right, signature="not base64 at all"),
        msgspec.structs.replace(right, certificate_pem=site.authority.pem),
        msgspec.structs.replace(right, certificate_pem="nonsense"),
        RejoinRequest(certificate_pem="", csr_pem="", at_s=now_s, signature=""),
    ]
    for request in forged:
        status, answer = await site.ask("POST", "rejoin", encoded(request))
        assert (status, answer["code"]) in {
            (403, "rejoin_refused"),
            (400, "bad_certificate_request"),
        }, answer
    assert (await site.ask("POST", "rejoin", encoded(right)))[0] == 200


@pytest.mark.parametrize("path", ["join", "rejoin"])
async def test_of_strangers_little_is_read(site, path):
    body = b'{"x":"' + b"a" * 70_000 + b'"}'
    status, answer = await site.ask("POST", path, body)
    assert (status, answer["code"]) == (400, "bad_report")
    chunks = (body[i : i + 4_096] for i in range(0, len(body), 4_096))

    async def unannounced():
        for chunk in chunks:
            yield chunk

    status, answer = await site.ask("POST", path, unannounced())
    assert (status, answer["code"]) == (400, "bad_report")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"csr_pem": 1}', b"\xff\xfe", b"[" * 9_000])
async def test_what_is_no_message_is_refused(site, body):
    context = node_context(await site.joined())
    for path, shown in (("join", None), ("rejoin", None), ("renew", context), ("hello", context)):
        status, answer = await site.ask("POST", path, body, shown)
        assert (status, answer["code"]) == (400, "bad_report")


async def test_no_node_tells_without_end(site):
    context = node_context(await site.joined())
    told = Heartbeat(node_id="nod_1", replicas=(), models=("sha256:0",) * 5_000)
    status, answer = await site.ask("POST", "heartbeat", encoded(told), context)
    assert (status, answer["code"]) == (400, "bad_report")


async def test_a_compressed_body_is_not_unpacked(site):
    for encoding in ("gzip", "deflate", "br", "identity"):
        status, answer = await site.ask(
            "POST", "join", b"x" * 100, headers={"Content-Encoding": encoding}
        )
        assert status == 400, answer


async def test_a_body_that_trickles_is_cut_off(site, monkeypatch):
    monkeypatch.setattr(node_api, "_BODY_S", 0.2)

    async def trickle():
        for _ in range(100):
            yield b" "
            await asyncio.sleep(0.1)

    began = time.monotonic()
    status, answer = await site.ask("POST", "join", trickle())
    assert (status, answer["code"]) == (400, "bad_report")
    assert time.monotonic() - began < 5


async def test_who_says_nothing_is_shown_out(site, monkeypatch):
    monkeypatch.setattr(node_guests, "_HANDSHAKE_S", 0.3)
    monkeypatch.setattr(node_guests, "_ANONYMOUS_S", 0.3)
    host, port = "127.0.0.1", site.api.port
    mute = await asyncio.open_connection(host, port)  # no handshake even
    idle = await asyncio.open_connection(
        host, port, ssl=site.context(), server_hostname=APPLIANCE_NAME
    )
    for reader, writer in (mute, idle):
        async with asyncio.timeout(10):
            assert await end_of(reader) == b""
        writer.close()


async def end_of(reader):
    """What comes until the other end closes, or aborts."""
    try:
        return await reader.read()
    except (ConnectionError, ssl.SSLError):
        return b""


async def test_one_address_takes_no_more_than_its_share(site, monkeypatch):
    """Those of one host without a certificate are bounded; who has shown one comes in still."""
    monkeypatch.setattr(node_guests, "_ANONYMOUS_PER_PEER_MAX", 4)
    identity = await site.joined()
    await forgotten(site)
    kept_session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=node_context(identity), limit=1)
    )
    async with kept_session:
        assert (await said(kept_session, site.base, "POST", "hello", encoded(HELLO)))[0] == 200
        held = [socket.create_connection(("127.0.0.1", site.api.port)) for _ in range(4)]
        try:
            await asyncio.sleep(0.1)
            with pytest.raises((aiohttp.ClientError, OSError)):
                await site.ask("GET", "ca")
            assert (await said(kept_session, site.base, "POST", "hello", encoded(HELLO)))[0] == 200
        finally:
            for one in held:
                one.close()
    await forgotten(site)
    assert (await site.ask("GET", "ca"))[0] == 200


async def test_strangers_leave_room_for_nodes(site, monkeypatch):
    monkeypatch.setattr(node_guests, "_STRANGER_MAX", 2)
    monkeypatch.setattr(node_guests, "_STRANGERS_MAX", 4)
    identity = await site.joined()
    assert (await site.ask("POST", "hello", encoded(HELLO), node_context(identity)))[0] == 200
    await forgotten(site)
    held = []
    try:
        for number in range(12):
            stranger = (f"127.0.0.{2 + number % 4}", 0)
            held.append(socket.create_connection(("127.0.0.1", site.api.port), 5, stranger))
        await asyncio.sleep(0.2)
        assert len(site.api._guests._guests) == 4
        assert (await site.ask("POST", "hello", encoded(HELLO), node_context(identity)))[0] == 200
    finally:
        for one in held:
            one.close()


async def test_a_guest_that_breaks_the_reception_keeps_no_place(site, monkeypatch):
    identity = await site.joined()
    await forgotten(site)

    def broken():
        raise RuntimeError("no context today")

    with monkeypatch.context() as patch:
        patch.setattr(site.api._guests, "_context", broken)
        with pytest.raises((aiohttp.ClientError, OSError)):
            await site.ask("GET", "ca")
        await forgotten(site)
    assert (await site.ask("POST", "hello", encoded(HELLO), node_context(identity)))[0] == 200


async def forgotten(site):
    """Those who have gone are noticed within a moment."""
    async with asyncio.timeout(10):
        while site.api._guests._guests:  # noqa: ASYNC110 - nobody is told when they go
            await asyncio.sleep(0.05)


async def test_one_node_does_not_crowd_out_the_others(site, monkeypatch):
    monkeypatch.setattr(node_guests, "_PER_PEER_MAX", 3)
    identity = await site.joined()
    await forgotten(site)
    context = node_context(identity)
    open_ = [
        await asyncio.open_connection(
            "127.0.0.1", site.api.port, ssl=context, server_hostname=APPLIANCE_NAME
        )
        for _ in range(3)
    ]
    with pytest.raises((aiohttp.ClientError, OSError)):
        await site.ask("POST", "hello", encoded(HELLO), context)
    for _, writer in open_:
        writer.close()


async def test_two_first_tokens_at_once_open_one_port(tmp_path, registry, monkeypatch):
    monkeypatch.setattr("appliance.fleet.joining._EVERYWHERE", "127.0.0.1")
    site = SiteOfNodes(tmp_path, registry)
    await site.joining.start()
    assert site.api.port is None  # nothing listens before the first token
    try:
        made = await asyncio.gather(*(site.token() for _ in range(4)))
        assert len({one.server for one in made}) == 1
        assert {one.listener.address for one in made} == {f"127.0.0.1:{site.api.port}"}
        assert [one.listener.opened for one in made].count(True) == 1  # and who did it says so
        assert await registry.settings.get("nodes.port") == str(site.api.port)
        site.base = made[0].server
        assert (await site.ask("GET", "ca"))[0] == 200
        port = site.api.port
    finally:
        await site.joining.stop()
    await site.joining.start()  # as after a restart: where nodes know it
    assert site.api.port == port
    await site.joining.stop()


async def test_nobody_else_answers_for_the_site(site, tmp_path):
    """The agent renews with this site's appliance alone, whoever else has its address."""
    identity = await site.joined()
    papers = Authority(tmp_path, "foreign").appliance()
    heard = []

    async def answer(request):
        heard.append(await request.read())
        return web.Response(text="{}")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers.file)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    key = fresh_key()
    moved = msgspec.structs.replace(
        identity.about, server=f"https://127.0.0.1:{runner.addresses[0][1]}"
    )
    identity.about = moved
    for act in (joining.renew(identity), joining.rejoin(identity, int(time.time()))):
        with pytest.raises((WrongSite, ApplianceAway)):
            await act
    assert heard == []
    await runner.cleanup()
    assert encoded(RenewRequest(csr_pem=key.csr_pem))  # nothing of it was sent


@pytest.mark.parametrize(
    ("settings", "asked", "server"),
    [
        (Nodes(advertise="gpu.example"), None, "https://gpu.example:{port}"),
        (Nodes(advertise="gpu.example:9"), None, "https://gpu.example:9"),
        (Nodes(advertise="gpu.example:9"), "192.0.2.1", "https://192.0.2.1:{port}"),
        (Nodes(advertise="2001:db8::1"), None, "https://[2001:db8::1]:{port}"),
        (Nodes(listen="127.0.0.1:4711"), None, "https://127.0.0.1:{port}"),  # nowhere else
        (Nodes(listen="0.0.0.0:4711"), None, "https://192.0.2.99:{port}"),
        (Nodes(), None, "https://192.0.2.99:{port}"),
    ],
)
async def test_the_address_that_nodes_are_told(
    site, registry, monkeypatch, settings, asked, server
):
    monkeypatch.setattr("appliance.fleet.joining.own_address", lambda: "192.0.2.99")
    desk = JoinDesk(
        registry=registry,
        authority=site.authority,
        api=lambda _desk: site.api,
        settings=settings,
        site="berlin",
        clock=site.clock,
    )
    made = await desk.token("test", NodeTokenCreate(address=asked))
    assert made.server == server.format(port=site.api.port)


@pytest.mark.parametrize("asked", ["", "a b", "host:0", "host:99999", "u@host", "http://h", None])
async def test_no_address_is_told_before_a_token_is_made(site, registry, monkeypatch, asked):
    monkeypatch.setattr("appliance.fleet.joining.own_address", lambda: None)
    desk = JoinDesk(
        registry=registry,
        authority=site.authority,
        api=lambda _desk: site.api,
        settings=Nodes(),
        site="berlin",
        clock=site.clock,
    )
    with pytest.raises(NoAddress) as caught:
        await desk.token("test", NodeTokenCreate(address=asked))
    assert "--address" in (caught.value.next_step or "")
    assert await registry.node_tokens.list() == []
