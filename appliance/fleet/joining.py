"""Machines become nodes here: tokens, certificates, and where the node API listens."""

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable
from typing import Final

from appliance.domain.clock import Clock, iso
from appliance.domain.ids import NodeId
from appliance.fleet.addresses import joined, own_address, split_address
from appliance.fleet.errors import NoAddress, RejoinRefused
from appliance.fleet.node_api import NodeApi
from appliance.registry.node_certificates import Certificate
from appliance.registry.registry import Registry
from appliance.security.site_ca import Issued, SiteAuthority
from appliance.settings import Nodes as NodeSettings
from appliance.wire.join import (
    REJOIN_SKEW_S,
    TOKEN_PREFIX,
    Joined,
    JoinRequest,
    RejoinRequest,
    RenewRequest,
    rejoin_text,
)
from appliance.wire.node_tokens import NodeListener, NodeTokenCreate, NodeTokenCreated

log = logging.getLogger(__name__)

ACTOR: Final = "appliance:joining"
PORT: Final = 8444  # tried first
_PORT_SETTING: Final = "nodes.port"
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - nodes come from the network: that is its purpose
_ALL_ADDRESSES: Final = frozenset({_EVERYWHERE, "::"})
_NAME_IT: Final = "Name it: `cic node token create --address HOST`, or nodes.advertise."


class JoinDesk:
    """Gives tokens and certificates, and opens the node API when the first token is given."""

    def __init__(
        self,
        *,
        registry: Registry,
        authority: SiteAuthority,
        api: Callable[["JoinDesk"], NodeApi],
        settings: NodeSettings,
        site: str,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._authority = authority
        self._settings = settings
        self._site = site
        self._clock = clock
        self._api = api(self)
        self._opening = asyncio.Lock()  # two first tokens at once open one port

    @property
    def ca_pem(self) -> str:
        return self._authority.pem

    async def start(self) -> None:
        """Listen, if the settings say where, or nodes know the port already.

        Raises NodeApiClosed.
        """
        if self._settings.listen is not None:
            await self._api.listen(*self._listen_setting(self._settings.listen))
        else:
            port = await self._registry.settings.get(_PORT_SETTING)
            if port is not None:
                await self._api.listen(_EVERYWHERE, int(port))

    async def stop(self) -> None:
        await self._api.stop()

    async def token(self, actor: str, asked: NodeTokenCreate) -> NodeTokenCreated:
        """A new token, with what to type on the node. Opens the node API.

        Raises NoAddress, InvalidValue, NodeApiClosed.
        """
        host, port = self._advertised(asked.address)
        at_port, opened = await self._open()
        row, secret = await self._registry.node_tokens.create(
            actor, ttl_s=asked.ttl_s, node_name=asked.node
        )
        token = f"{TOKEN_PREFIX}{secret}.{self._authority.fingerprint}"
        server = f"https://{joined(host, port or at_port)}"
        return NodeTokenCreated(
            id=row.id,
            token=token,
            server=server,
            command=f"cic agent join --server {server} --token {token}",
            ca_sha256=self._authority.fingerprint,
            node=row.node_name,
            expires_at=iso(row.expires_at_ns),
            listener=NodeListener(address=joined(self._listens_on(), at_port), opened=opened),
        )

    # What machines ask.

    async def join(self, request: JoinRequest) -> Joined:
        """Raises TokenRefused, InvalidValue, BadCertificateRequest."""
        node, _, issued = await self._registry.node_tokens.redeem(
            ACTOR,
            request.token_id,
            request.secret,
            request.node_name,
            request.host_name,
            lambda node_id: self._issue(request.csr_pem, node_id),
        )
        log.info("node joined", extra={"node_id": node.id, "node": node.name})
        return self._joined(node.id, node.name, issued)

    async def renew(self, request: RenewRequest, held: Certificate) -> Joined:
        """Raises CertificateRefused, BadCertificateRequest."""
        issued = await self._registry.node_certificates.renew(
            ACTOR, held.serial, lambda node_id: self._issue(request.csr_pem, node_id)
        )
        return self._joined(held.node_id, held.node_name, issued)

    async def rejoin(self, request: RejoinRequest) -> Joined:
        """For who slept past the end of its certificate. Raises RejoinRefused, CertificateRefused,
        BadCertificateRequest.
        """
        now_ns = self._clock.wall_ns()
        shown = self._authority.read(request.certificate_pem)
        if abs(now_ns // 1_000_000_000 - request.at_s) > REJOIN_SKEW_S:
            raise RejoinRefused(
                "The clocks of the node and of the appliance are minutes apart.",
                next_step="Set the node's clock, and start its agent again.",
            )
        try:
            signature = base64.b64decode(request.signature, validate=True)
        except (ValueError, binascii.Error):
            signature = b""
        if not shown.verify(signature, rejoin_text(request.csr_pem, request.at_s)):
            raise RejoinRefused("Whoever shows this certificate does not have its key.")
        if now_ns - shown.not_after_ns > int(self._settings.rejoin_grace_s * 1e9):
            raise RejoinRefused(
                "This certificate expired longer ago than this site forgives.",
                next_step="Join again: `cic node token create --node NAME` on the appliance.",
            )
        held = await self._registry.node_certificates.check(shown.serial)
        log.info("node rejoins", extra={"node_id": held.node_id, "node": held.node_name})
        return await self.renew(RenewRequest(csr_pem=request.csr_pem), held)

    # Parts.

    async def _open(self) -> tuple[int, bool]:
        """The port where the node API listens, and whether it does only since now.

        It is kept, because nodes remember it.
        """
        async with self._opening:
            if self._api.port is not None:
                return self._api.port, False
            port = await self._api.listen(_EVERYWHERE, PORT, or_any=True)
            await self._registry.settings.set(ACTOR, _PORT_SETTING, str(port))
            return port, True

    def _listens_on(self) -> str:
        setting = self._settings.listen
        return _EVERYWHERE if setting is None else self._listen_setting(setting)[0]

    def _advertised(self, asked: str | None) -> tuple[str, int | None]:
        """Raises NoAddress."""
        told = asked or self._settings.advertise
        try:
            if told is not None:
                return split_address(told)
            if self._settings.listen is not None:
                host, _ = self._listen_setting(self._settings.listen)
                if host not in _ALL_ADDRESSES:  # it is the only one that answers
                    return host, None
        except ValueError as error:
            raise NoAddress(f"{told!r} is no address: {error}.", next_step=_NAME_IT) from error
        host_found = own_address()
        if host_found is None:
            raise NoAddress(
                "This host has no address under which other machines could reach it.",
                next_step=_NAME_IT,
            )
        return host_found, None

    def _listen_setting(self, text: str) -> tuple[str, int]:
        """Raises NoAddress."""
        try:
            host, port = split_address(text)
        except ValueError as error:
            raise NoAddress(
                f"nodes.listen = {text!r} is no address: {error}.", next_step="Write HOST:PORT."
            ) from error
        return host, PORT if port is None else port

    def _issue(self, csr_pem: str, node_id: NodeId) -> Issued:
        return self._authority.issue_node(
            csr_pem, node_id, self._clock.wall_ns(), self._settings.certificate_s
        )

    def _joined(self, node_id: NodeId, node_name: str, issued: Issued) -> Joined:
        return Joined(
            node_id=node_id,
            node_name=node_name,
            site=self._site,
            certificate_pem=issued.pem,
            ca_pem=self._authority.pem,
        )
