"""Every certificate of the site: its CA, the appliance's own, those of its nodes."""

from collections.abc import Iterable
from typing import Final

from appliance.admin.calls import Call, NoQuery, Route, Services
from appliance.domain.clock import iso
from appliance.registry.node_certificates import Certificate
from appliance.security.certificate_facts import facts_of
from appliance.wire.certificates import CertificateState, SiteCertificate

_DAY_NS: Final = 86_400 * 1_000_000_000
_CA_ENDING_DAYS: Final = 365  # every node has to join anew by then
_NODES_RENEW: Final = (
    "By itself, after half of its life. Else: `cic node token create --node NAME`."
)


async def list_certificates(
    services: Services, _call: Call[NoQuery, None]
) -> list[SiteCertificate]:
    now_ns = services.clock.wall_ns()
    parts = services.upkeep
    rows = [
        _own(
            parts.authority.pem,
            now_ns,
            _CA_ENDING_DAYS * _DAY_NS,
            SiteCertificate(
                kind="site CA",
                name="site CA",
                state="good",
                used_for="Vouches for nodes and for this appliance; nodes know the site by it.",
                renewal="Never by itself: a new one is a new site for its nodes.",
            ),
        )
    ]
    appliance = SiteCertificate(
        kind="appliance",
        name="appliance",
        state="none",
        used_for="Shown to nodes, by the node API and towards engines behind their doors.",
        renewal="By itself, after half a day; its key is in memory alone.",
    )
    issued = parts.tls.issued
    rows.append(appliance if issued is None else _own(issued.pem, now_ns, 0, appliance))
    rows += nodes(await services.registry.node_certificates.list(), now_ns)
    rows.append(
        SiteCertificate(
            kind="endpoint",
            name=services.live.endpoint(),
            state="none",
            used_for="Clients on the LAN reach the endpoint by plain HTTP.",
            renewal="Put a proxy with TLS before it where the LAN is not trusted.",
        )
    )
    return rows


def _own(pem: str, now_ns: int, ending_ns: int, row: SiteCertificate) -> SiteCertificate:
    facts = facts_of(pem)
    state: CertificateState = "good"
    if facts.not_after_ns <= now_ns:
        state = "expired"
    elif facts.not_after_ns - now_ns < ending_ns:
        state = "ending"
    return SiteCertificate(
        kind=row.kind,
        name=row.name,
        state=state,
        subject=facts.subject,
        serial=facts.serial,
        fingerprint=facts.sha256,
        issued_at=iso(facts.not_before_ns),
        expires_at=iso(facts.not_after_ns),
        days_left=_days(facts.not_after_ns, now_ns),
        used_for=row.used_for,
        renewal=row.renewal,
    )


def nodes(certificates: Iterable[Certificate], now_ns: int) -> list[SiteCertificate]:
    """The newest of each node first; older ones that are still good were replaced by it."""
    seen: set[str] = set()
    rows = []
    for held in certificates:
        state: CertificateState = "good"
        if held.revoked_at_ns is not None:
            state = "revoked"
        elif held.expires_at_ns <= now_ns:
            state = "expired"
        elif held.node_id in seen:
            state = "replaced"
        elif (held.expires_at_ns - now_ns) * 4 < held.expires_at_ns - held.issued_at_ns:
            state = "ending"  # it should have been made new when half of it was over
        seen.add(held.node_id)
        rows.append(
            SiteCertificate(
                kind="node",
                name=held.node_name,
                state=state,
                serial=held.serial,
                issued_at=iso(held.issued_at_ns),
                expires_at=iso(held.expires_at_ns),
                days_left=_days(held.expires_at_ns, now_ns),
                used_for="Shows the appliance, and engines' doors, which node it is.",
                renewal=_NODES_RENEW,
            )
        )
    return rows


def _days(after_ns: int, now_ns: int) -> int:
    return max(0, after_ns - now_ns) // _DAY_NS


ROUTES: Final = (
    Route(
        *("GET", "/v1/certificates", "Every certificate of the site", list_certificates),
        answer=list[SiteCertificate],
    ),
)
