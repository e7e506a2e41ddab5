"""The way to the control plane: whose certificate is taken, which address, what is never used."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.security.signing import SigningKey
from appliance.settings import Sync
from appliance.sync.addresses import parse
from appliance.sync.client import connected
from appliance.sync.errors import BadControlPlaneUrl, ControlPlaneAway, DocumentRefused

KEY = SigningKey(b"c" * 32).public
NAME = "control-plane.example"
FAST = {"connect_s": 2, "request_s": 3}


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for `name` that vouches for itself: its PEM, and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, key_pem = folder / f"{name}.pem", folder / f"{name}.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, key_pem


@asynccontextmanager
async def answering(
    handler: Callable[[web.Request], Any], context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def show_key(request: web.Request) -> web.Response:
    assert request.path == "/v1/key"
    return web.Response(text=KEY.pem, headers={"X-Host": request.host})


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[tuple[int, Path]]:
    """A control plane of that name, with its certificate."""
    pem, key_pem = certificate(tmp_path, NAME)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key_pem)
    async with answering(show_key, context) as port:
        yield port, pem


def names(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """The name service says that every name leads there."""

    async def found(_loop: object, _host: str, port: int, **_: object) -> list[Any]:
        return [
            (
                socket.AF_INET6 if ipaddress.ip_address(each).version == 6 else socket.AF_INET,
                *(socket.SOCK_STREAM, 6, "", (each, port)),
            )
            for each in addresses
        ]

    monkeypatch.setattr(asyncio.get_running_loop().__class__, "getaddrinfo", found)


async def key_at(url: str, **settings: Any) -> Any:
    async with connected(parse(url), Sync(**{**FAST, **settings})) as control_plane:
        return await control_plane.key()


async def test_a_certificate_of_a_named_authority_is_taken(
    secure: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, pem = secure
    names(monkeypatch, "127.0.0.1")
    assert await key_at(f"https://{NAME}:{port}", ca_file=str(pem)) == KEY


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    secure: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, "127.0.0.1")
    with pytest.raises(ControlPlaneAway, match="certificate"):
        await key_at(f"https://{NAME}:{secure[0]}")


async def test_a_certificate_of_another_name_is_refused(
    secure: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, pem = secure
    names(monkeypatch, "127.0.0.1")
    with pytest.raises(ControlPlaneAway, match="certificate"):
        await key_at(f"https://other.example:{port}", ca_file=str(pem))


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "0.0.0.0", "fd00:ec2::254"])
async def test_a_name_that_leads_to_metadata_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    names(monkeypatch, "127.0.0.1", address)
    with pytest.raises(BadControlPlaneUrl, match="leads to"):
        await key_at(f"https://{NAME}")


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with answering(show_key) as port:
        assert await key_at(f"http://127.0.0.1:{port}") == KEY


async def test_a_proxy_of_the_settings_is_used() -> None:
    async with answering(show_key) as port:
        with pytest.raises(ControlPlaneAway):
            await key_at(f"http://127.0.0.1:{port}", proxy="http://127.0.0.1:9")


@pytest.mark.parametrize("proxy", ["nonsense", "gopher://127.0.0.1:1", "http://[::1"])
async def test_a_proxy_that_is_none_is_named(proxy: str) -> None:
    with pytest.raises(ControlPlaneAway, match="proxy"):
        await key_at("http://127.0.0.1:9", proxy=proxy)


async def test_a_redirect_is_not_followed() -> None:
    asked = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": "/v1/other"})

    async with answering(elsewhere) as port:
        with pytest.raises(Exception, match="answered 307") as caught:
            await key_at(f"http://127.0.0.1:{port}")
    assert "Redirects are not followed" in str(caught.value)
    assert asked == ["/v1/key"]


async def test_an_answer_without_end_is_cut_off() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(10_000):
            await response.write(b"x" * 65_536)
        return response

    async with answering(endless) as port:
        with pytest.raises(DocumentRefused, match="larger than"):
            await key_at(f"http://127.0.0.1:{port}")


async def test_a_file_of_authorities_that_is_none_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "authorities.pem"
    with pytest.raises(ControlPlaneAway, match=r"authorities\.pem"):
        await key_at("https://127.0.0.1:9", ca_file=str(missing))
    missing.write_text("nothing")
    with pytest.raises(ControlPlaneAway, match=r"authorities\.pem"):
        await key_at("https://127.0.0.1:9", ca_file=str(missing))
