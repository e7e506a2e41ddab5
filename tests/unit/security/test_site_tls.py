"""The appliance's own TLS: 1.3 alone, its certificate kept new by the clock, nothing on a disk."""

import ssl
import time
from pathlib import Path

import pytest

from appliance.domain.ids import NodeId
from appliance.domain.tls_names import APPLIANCE_NAME, node_name, replica_name
from appliance.security.site_ca import ensure_authority
from appliance.security.site_tls import ApplianceTls
from tests.fakes.certificates import Authority
from tests.fakes.clock import ManualClock

HOUR_S = 3_600


@pytest.fixture
def clock():
    # OpenSSL looks at the real clock: what is issued in these tests is good then.
    return ManualClock(time.time_ns() - 14 * HOUR_S * 10**9)


@pytest.fixture
def authority(tmp_path, clock):
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    return ensure_authority(folder, clock.wall_ns())


@pytest.fixture
def tls(authority, clock):
    return ApplianceTls(authority, clock)


def shaken(server, client, name):
    """A handshake in memory: what each end knows of the other. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(to_server, to_client, server_side=True)
    here = client.wrap_bio(to_client, to_server, server_hostname=name)
    left = {there, here}
    for _ in range(10):
        for end in tuple(left):
            try:
                end.do_handshake()
                left.discard(end)
            except ssl.SSLWantReadError:
                continue
    assert not left
    return there, here


def trusting(authority, version=ssl.TLSVersion.TLSv1_3):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.load_verify_locations(cadata=authority.pem)
    return context


def serial(end):
    return end.getpeercert()["serialNumber"]


def test_a_guest_sees_the_appliance_by_its_fixed_name(authority, tls):
    there, here = shaken(tls.for_nodes(), trusting(authority), APPLIANCE_NAME)
    assert ("DNS", APPLIANCE_NAME) in here.getpeercert()["subjectAltName"]
    assert here.version() == "TLSv1.3"
    assert not there.getpeercert()  # the guest has shown nothing
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(tls.for_nodes(), trusting(authority), node_name(NodeId("node_1")))


def test_older_tls_is_not_spoken(authority, tls):
    with pytest.raises(ssl.SSLError):
        shaken(tls.for_nodes(), trusting(authority, ssl.TLSVersion.TLSv1_2), APPLIANCE_NAME)


def test_who_shows_a_certificate_of_another_ca_does_not_come_in(authority, tls, tmp_path):
    papers = Authority(tmp_path, "foreign").node(NodeId("node_1"))
    client = trusting(authority)
    client.load_cert_chain(papers.file)
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(tls.for_nodes(), client, APPLIANCE_NAME)


def test_a_door_of_another_ca_is_not_trusted(tls, tmp_path):
    node = NodeId("node_1")
    papers = Authority(tmp_path, "foreign").node(node)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(papers.file)
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(server, tls.towards_nodes(), replica_name("rep_1", node))


def test_the_certificate_is_made_anew_at_half_its_life(authority, tls, clock):
    def shown():
        return serial(shaken(tls.for_nodes(), trusting(authority), APPLIANCE_NAME)[1])

    first = shown()
    clock.turn(11 * HOUR_S)
    assert shown() == first
    clock.turn(2 * HOUR_S)
    assert shown() != first


def test_a_clock_that_was_set_back_makes_another_certificate(authority, tls, clock):
    def shown():
        return serial(shaken(tls.for_nodes(), trusting(authority), APPLIANCE_NAME)[1])

    first = shown()
    clock.turn(-HOUR_S)
    assert shown() != first


def test_the_key_touches_no_disk_and_leaves_no_descriptor(tls, tmp_path):
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for _ in range(3):
        tls.for_nodes()
        tls.towards_nodes()
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before
    kept = {path.name for path in (tmp_path / "secrets").iterdir()}
    assert kept == {"site-ca-key", "site-ca.pem"}
