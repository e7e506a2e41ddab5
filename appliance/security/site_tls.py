"""The appliance's own ends of TLS inside the site: towards nodes' doors, and for nodes that come.

TLS 1.3 alone, the site's CA alone. The appliance's certificate lives a day and is made anew after
half of it; contexts stay, connections that exist too.
"""

import os
import ssl
from typing import Final

from appliance.domain.clock import Clock
from appliance.security.site_ca import Issued, SiteAuthority

_LIFE_S: Final = 86_400.0


class ApplianceTls:
    """Contexts with the appliance's certificate in them, as it is now."""

    def __init__(self, authority: SiteAuthority, clock: Clock) -> None:
        self._authority = authority
        self._clock = clock
        self._renew_at_ns = 0
        self.issued: Issued | None = None  # the certificate that is shown now; None: not yet
        self._client = _context(ssl.PROTOCOL_TLS_CLIENT, authority.pem)
        self._server = _context(ssl.PROTOCOL_TLS_SERVER, authority.pem)
        # A node that has yet to join has no certificate; what it may ask is decided above TLS.
        self._server.verify_mode = ssl.CERT_OPTIONAL
        self._server.num_tickets = 0  # who comes shows its certificate each time

    def towards_nodes(self) -> ssl.SSLContext:
        """For connections to a door: give the name of the replica as `server_hostname`."""
        self._refresh()
        return self._client

    def for_nodes(self) -> ssl.SSLContext:
        """For the listener. Call it now and then: it keeps the certificate new."""
        self._refresh()
        return self._server

    def _refresh(self) -> None:
        now_ns = self._clock.wall_ns()
        half_ns = int(_LIFE_S / 2 * 1e9)
        # A clock that was set back makes what was issued a thing of the future: anew as well.
        if self._renew_at_ns - half_ns <= now_ns < self._renew_at_ns:
            return
        identity = self._authority.issue_appliance(now_ns, _LIFE_S)
        # OpenSSL reads files alone. This one is in memory: the key never is on a disk, and a disk
        # that is full does not matter.
        descriptor = os.memfd_create("appliance", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "w") as file:
            file.write(identity.issued.pem + identity.key_pem)
            file.flush()
            name = f"/proc/self/fd/{descriptor}"
            self._client.load_cert_chain(name)
            self._server.load_cert_chain(name)
        self.issued = identity.issued
        self._renew_at_ns = now_ns + half_ns


def _context(protocol: int, ca_pem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=ca_pem)
    return context
