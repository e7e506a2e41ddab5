"""Becoming a node of a site, and getting certificates anew.

What is trusted comes first: the CA is fetched over a connection that trusts nobody, and compared
with the token. Only then is anything said that is worth something.
"""

import asyncio
import ssl
from typing import Final, TypeVar

import aiohttp
import msgspec

from agent.errors import ApplianceAway, ApplianceRefused, BadToken, WrongSite
from agent.identity import Identity, fresh_key, read_ca
from agent.ways import address_of, node_context
from appliance.domain.tls_names import APPLIANCE_NAME
from appliance.wire.agent import Refusal
from appliance.wire.join import (
    Joined,
    JoinRequest,
    RenewRequest,
    Token,
    parse_token,
)

M = TypeVar("M")

_DEADLINE_S: Final = 15.0
_CA_BYTES_MAX: Final = 16 * 1024
_ANSWER_BYTES_MAX: Final = 256 * 1024


def read_token(text: str) -> Token:
    """Raises BadToken."""
    try:
        return parse_token(text)
    except ValueError as error:
        raise BadToken(
            f"This is no token: {error}.",
            next_step="Copy it whole from `cic node token create`.",
        ) from error


def base_url(server: str) -> str:
    """https://HOST:PORT. Raises BadToken."""
    try:
        host, port = address_of(server)
    except ValueError as error:
        raise BadToken(
            f"{server!r} is no server: {error}.",
            next_step="Copy it from `cic node token create`.",
        ) from error
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


async def trusted_ca(server: str, ca_sha256: str) -> str:
    """The CA's certificate, PEM, once it is the one the token names. Nothing secret is sent.

    Raises ApplianceAway, WrongSite.
    """
    trusts_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusts_nobody.minimum_version = ssl.TLSVersion.TLSv1_3
    trusts_nobody.check_hostname = False
    trusts_nobody.verify_mode = ssl.CERT_NONE
    async with _session(trusts_nobody) as session:
        status, content = await _ask(session, "GET", f"{server}/node/v1/ca", None, _CA_BYTES_MAX)
    found = read_ca(content.decode(errors="replace")) if status == 200 else None
    if found is None:
        raise ApplianceAway(
            f"{server} is no appliance: it shows no CA.",
            next_step="Copy the address from `cic node token create`.",
        )
    if found.sha256 != ca_sha256:
        raise WrongSite(
            f"The CA at {server} is not the one the token names. The token was not sent.",
            next_step="The token may be miscopied, or of another site, or somebody stands in"
            f" between. Its last part is {ca_sha256}, and {server} shows {found.sha256}."
            " The right one is what `cic node token create` prints as CA SHA-256.",
        )
    return found.pem


async def join(server: str, token: Token, node_name: str, host_name: str, csr_pem: str) -> Joined:
    """`node_name` "": as the token says, else the host's.

    Raises ApplianceAway, ApplianceRefused, WrongSite.
    """
    ca_pem = await trusted_ca(server, token.ca_sha256)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=ca_pem)
    request = JoinRequest(
        token_id=token.token_id,
        secret=token.secret,
        node_name=node_name,
        host_name=host_name,
        csr_pem=csr_pem,
    )
    async with _session(context) as session:
        joined = await _post(session, f"{server}/node/v1/join", request)
    return msgspec.structs.replace(joined, ca_pem=ca_pem)  # the one that was compared


async def renew(identity: Identity) -> None:
    """Get another certificate with another key. Raises ApplianceAway, ApplianceRefused,
    IdentityBroken.
    """
    key = fresh_key()
    async with _session(node_context(identity)) as session:
        url = f"{identity.about.server}/node/v1/renew"
        joined = await _post(session, url, RenewRequest(csr_pem=key.csr_pem))
    await asyncio.to_thread(identity.renewed, key, joined)


async def rejoin(identity: Identity, now_s: int) -> None:
    """The same after the certificate has expired. Raises as `renew` does."""
    key = fresh_key()
    request = identity.rejoin_request(key, now_s)
    async with _session(node_context(identity, shows=False)) as session:
        joined = await _post(session, f"{identity.about.server}/node/v1/rejoin", request)
    await asyncio.to_thread(identity.renewed, key, joined)


def _session(context: ssl.SSLContext) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, force_close=True),
        timeout=aiohttp.ClientTimeout(total=_DEADLINE_S),
        trust_env=False,
    )


async def _post(session: aiohttp.ClientSession, url: str, message: msgspec.Struct) -> Joined:
    status, content = await _ask(
        session, "POST", url, msgspec.json.encode(message), _ANSWER_BYTES_MAX
    )
    try:
        if status == 200:
            return msgspec.json.decode(content, type=Joined)
        refusal = msgspec.json.decode(content, type=Refusal)
    except msgspec.DecodeError as error:
        raise ApplianceAway(f"{url} answers {status} without sense.") from error
    raise ApplianceRefused(refusal.code, refusal.message)


async def _ask(
    session: aiohttp.ClientSession, method: str, url: str, body: bytes | None, bytes_max: int
) -> tuple[int, bytes]:
    try:
        async with session.request(
            method,
            url,
            data=body,
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
            server_hostname=APPLIANCE_NAME,
        ) as response:
            content = bytearray()
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > bytes_max:
                    raise ApplianceAway(f"{url} answers more than it should.")
            return response.status, bytes(content)
    except aiohttp.ClientConnectorCertificateError as error:
        raise WrongSite(
            f"{url} does not show this site's certificate: {error.certificate_error}."
        ) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ApplianceAway(
            f"{url} does not answer: {error or 'too late'}.",
            next_step="Check that `cic serve` runs there and that no firewall is in between.",
        ) from error
