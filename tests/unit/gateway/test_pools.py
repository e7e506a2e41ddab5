"""Connections to engines: where they never lead."""

import asyncio

import pytest

from appliance.gateway.pools import Pools
from tests.fakes.clock import ManualClock
from tests.fakes.endpoint import target


class _Elsewhere(asyncio.Transport):
    """A connection that a name of the network led astray."""

    def __init__(self, host):
        super().__init__({"peername": (host, 80)})
        self.aborted = False

    def abort(self):
        self.aborted = True


@pytest.mark.parametrize("host", ["169.254.169.254", "fe80::1", "224.0.0.1"])
async def test_no_engine_is_link_local(host, monkeypatch):
    made = []

    async def create_connection(factory, *_args, **_options):
        protocol = factory()
        made.append(_Elsewhere(host))
        protocol.connection_made(made[-1])
        return made[-1], protocol

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", create_connection)
    pools = Pools(ManualClock(), connect_s=1.0, idle_max=4)
    answered = asyncio.get_running_loop().create_future()
    pools.connect(target(80, host="engine.example"), lambda *what: answered.set_result(what))
    connection, reason = await asyncio.wait_for(answered, 5)
    assert connection is None
    assert "no engine" in reason
    assert made[0].aborted
    await pools.close()
