"""`cic control-plane serve` as a process: TLS, Stripe's webhook, SIGTERM."""

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from tests.fakes.command_line import cic

CIC = [sys.executable, "-c", "import sys; from appliance.cli import main; sys.exit(main())"]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "vendor"
    assert cic("control-plane", "--home", folder, "init", "--listen", "127.0.0.1:0").code == 0
    return folder


@contextmanager
def serving(folder: Path, environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """The URL and the log, while it serves; it must end well by SIGTERM."""
    log = folder / "serve.log"
    with log.open("wb") as err:
        process = subprocess.Popen(
            [*CIC, "control-plane", "--home", str(folder), "serve"],
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            env={**os.environ, **environ},
        )
    try:
        assert process.stdout is not None
        word, _, url = process.stdout.readline().partition(" ")
        assert word == "ready", log.read_text()
        yield url.strip(), log
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def certificate(folder: Path) -> tuple[Path, Path]:
    """For 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vendor")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "tls.pem", folder / "tls.key"
    pem.write_bytes(made.public_bytes(Encoding.PEM))
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return pem, secret


def test_it_serves_tls_and_stops_by_sigterm(made: Path) -> None:
    pem, secret = certificate(made)
    environ = {"CICP_LISTEN_TLS_CERTIFICATE": str(pem), "CICP_LISTEN_TLS_KEY": str(secret)}
    with serving(made, environ) as (url, log):
        assert url.startswith("https://127.0.0.1:")
        trust = ssl.create_default_context(cafile=str(pem))
        with httpx.Client(verify=trust, trust_env=False, timeout=20) as client:
            assert client.get(f"{url}/readyz").status_code == 200
            assert client.get(f"{url}/v1/key").text.startswith("-----BEGIN PUBLIC KEY-----")
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events[-2:] == ["stopping", "stopped"]


def test_stripes_webhook_must_be_signed_and_no_secret_is_logged(made: Path) -> None:
    environ = {
        "CICP_STRIPE_API_KEY": "sk_test_confidential",
        "CICP_STRIPE_WEBHOOK_SECRET": "whsec_confidential",
        "CICP_STRIPE_API_BASE": "http://127.0.0.1:9",
    }
    with serving(made, environ) as (url, log), httpx.Client(trust_env=False, timeout=20) as client:
        answer = client.post(f"{url}/webhooks/stripe", content=b'{"id": "evt_1"}')
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_stripe_event")
        signed = {"Stripe-Signature": "t=1,v1=abc"}
        answer = client.post(f"{url}/webhooks/stripe", content=b"{}", headers=signed)
        assert answer.status_code == 400
    assert "confidential" not in log.read_text()


def test_an_address_that_is_taken_and_a_certificate_that_is_none_are_said(made: Path) -> None:
    with serving(made, {}) as (url, _log):
        taken = cic("--json", "control-plane", "--home", made, "serve", "--listen", url[7:])
        assert (taken.code, taken.error["code"]) == (1, "control_plane_error")
    environ = {"CICP_LISTEN_TLS_CERTIFICATE": str(made / "none.pem")}
    broken = cic("--json", "control-plane", "--home", made, "serve", environ=environ)
    assert (broken.code, broken.error["code"]) == (1, "control_plane_error")
