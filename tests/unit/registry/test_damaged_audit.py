"""An audit that SQLite itself cannot read to its end is a finding, not a failure to look."""

from appliance.registry.registry import Registry
from tests.fakes.registry import ACTOR, Site


async def test_text_that_is_no_text_is_found(registry: Registry, site: Site) -> None:
    for name in ("acme", "bolt", "cord"):
        await registry.tenants.create(ACTOR, name)
    with site.as_an_intruder() as connection:
        connection.execute("UPDATE audit SET after = CAST(x'ff' AS TEXT) WHERE seq = 2")
    verdict = await registry.audit.verify()
    assert not verdict.ok
    assert "after entry 1 the file cannot be read" in verdict.problems[0]
