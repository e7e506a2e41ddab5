"""Room for bodies: bounded, and nobody's alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.ids import TenantId
from appliance.gateway.bodies import HELD_BYTES_MAX, SMALL_BYTES_MAX, Bodies, Pot
from appliance.gateway.errors import Overloaded

ONE, TWO, THREE = (TenantId(f"ten_{n}") for n in range(3))
LARGEST = 16 * 1024 * 1024


def test_one_tenant_leaves_room_for_the_next():
    bodies = Bodies(LARGEST, 1.0)
    with bodies.hold(ONE) as first, bodies.hold(ONE) as second, bodies.hold(TWO) as other:
        first.grow(LARGEST)
        with pytest.raises(Overloaded) as refused:
            second.grow(LARGEST)
        assert refused.value.retry_after_s
        other.grow(LARGEST)
        assert bodies.held_bytes == HELD_BYTES_MAX
    assert bodies.held_bytes == 0


def test_large_bodies_do_not_keep_small_ones_out():
    bodies = Bodies(LARGEST, 1.0)
    with bodies.hold(ONE) as first, bodies.hold(TWO) as second, bodies.hold(THREE) as small:
        first.grow(LARGEST)
        second.grow(LARGEST)
        small.grow(SMALL_BYTES_MAX)
        with pytest.raises(Overloaded):
            small.grow(1)  # too large now, and there is no room for large ones
        with bodies.hold(ONE) as own:
            own.grow(100)
    assert bodies.held_bytes == 0


def test_a_body_that_grows_large_leaves_the_small_ones():
    bodies = Bodies(LARGEST, 1.0)
    with bodies.hold(ONE) as holding:
        holding.grow(SMALL_BYTES_MAX)
        assert (bodies.small.bytes, bodies.large.bytes) == (SMALL_BYTES_MAX, 0)
        holding.grow(1)
        assert (bodies.small.bytes, bodies.large.bytes) == (0, SMALL_BYTES_MAX + 1)
        holding.grow(LARGEST - SMALL_BYTES_MAX - 1)
        assert holding.bytes == bodies.held_bytes == LARGEST
    assert bodies.held_bytes == 0


def test_two_thousand_small_bodies_of_one_tenant_are_held():
    bodies = Bodies(LARGEST, 1.0)
    for _ in range(2_000):
        bodies.hold(ONE).__enter__().grow(8 * 1024)
    assert bodies.small.bytes == 2_000 * 8 * 1024


def test_the_largest_body_always_fits():
    bodies = Bodies(4 * HELD_BYTES_MAX, 1.0)
    with bodies.hold(ONE) as holding:
        holding.grow(4 * HELD_BYTES_MAX)
    assert bodies.held_bytes == 0


@given(st.lists(st.tuples(st.sampled_from([ONE, TWO, THREE]), st.integers(1, 60)), max_size=60))
def test_a_pot_is_never_beyond_its_size_and_one_tenant_never_beyond_half(bodies):
    pot = Pot(100)
    taken = []
    for tenant, size in bodies:
        before = pot.bytes
        try:
            pot.take(tenant, size, 0)
        except Overloaded:
            assert pot.bytes == before
        else:
            taken.append((tenant, size))
        assert pot.bytes == sum(size for _, size in taken) <= 100
        for each in (ONE, TWO, THREE):
            own = [size for tenant, size in taken if tenant == each]
            assert len(own) < 2 or sum(own) <= 50
    for tenant, size in taken:
        pot.give(tenant, size)
    assert pot.bytes == 0
    pot.take(ONE, 100, 0)
