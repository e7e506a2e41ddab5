"""The audit: every change is in it, no secret is, and nobody changes it unseen."""

import hashlib
import json
import sqlite3

import pytest

from appliance.domain.limits import Layer, Limits
from appliance.registry.chain import GENESIS, Entry, link
from appliance.registry.registry import Registry
from appliance.registry.replicas import Seat
from tests.fakes.registry import ACTOR, Site

FIELDS = [
    "at_ns",
    "actor",
    "action",
    "object_kind",
    "object_id",
    "object_name",
    "before",
    "after",
    "sha256",
]


async def populate(registry: Registry) -> list[str]:
    """One of everything; the secrets that were used on the way."""
    secrets = ["sk-upstream-1234567890", "sk-upstream-0987654321"]
    await registry.tenants.create(ACTOR, "acme")
    await registry.environments.create(ACTOR, "prod", tenant="acme")
    made = await registry.keys.create(ACTOR, tenant="acme", environment="prod", name="k")
    turned = await registry.keys.rotate(ACTOR, "k")
    await registry.limits.set(ACTOR, Layer.KEY, {"tokens_per_min": 10}, key="k")
    await registry.deployments.create(
        ACTOR, "gpt", "external", url="https://engine.test", api_key=secrets[0]
    )
    await registry.deployments.update(ACTOR, "gpt", api_key=secrets[1])
    node = await registry.nodes.ensure("fleet", "node-1")
    replica = (await registry.replicas.list())[0]
    await registry.replicas.place("fleet", replica.id, [Seat(node.id)])
    await registry.settings.set(ACTOR, "banner", "hello")
    await registry.tenants.delete(ACTOR, "acme", cascade=True)
    return [*secrets, made.secret, turned.secret]


async def test_every_change_says_who_did_what_to_which(registry: Registry) -> None:
    await populate(registry)
    entries = await registry.audit.list()
    assert [(e.actor, e.action, e.object_kind, e.object_name) for e in entries] == [
        (ACTOR, "create", "tenant", "acme"),
        (ACTOR, "create", "region", "local"),
        (ACTOR, "create", "environment", "prod"),
        (ACTOR, "create", "key", "k"),
        (ACTOR, "rotate", "key", "k"),
        (ACTOR, "update", "key limits", "k"),
        (ACTOR, "create", "deployment", "gpt"),
        (ACTOR, "update", "deployment", "gpt"),
        ("fleet", "create", "node", "node-1"),
        ("fleet", "place", "replica", ""),
        (ACTOR, "create", "setting", "banner"),
        (ACTOR, "delete", "key", "k"),
        (ACTOR, "delete", "environment", "prod"),
        (ACTOR, "delete", "tenant", "acme"),
    ]
    assert [e.seq for e in entries] == list(range(1, len(entries) + 1))
    assert [e.seq for e in await registry.audit.list(since=10, count_max=3)] == [11, 12, 13]


async def test_before_and_after_are_the_object(registry: Registry, site: Site) -> None:
    row = await registry.tenants.create(ACTOR, "acme")
    site.clock.turn(5)
    await registry.tenants.update(ACTOR, "acme", name="umbrella")
    await registry.tenants.delete(ACTOR, "umbrella")
    created, renamed, deleted = await registry.audit.list()
    assert created.before is None
    assert created.after is not None
    assert created.after == renamed.before
    assert json.loads(created.after) == {
        "id": row.id,
        "name": "acme",
        "plan": "enterprise",
        "suspended": False,
        "created_at_ns": row.created_at_ns,
        "limits": {
            "requests_per_min": None,
            "tokens_per_min": None,
            "tokens_per_day": None,
            "concurrency": None,
        },
    }
    assert renamed.after == deleted.before
    assert deleted.after is None
    assert deleted.at_ns == site.clock.wall_ns() == row.created_at_ns + 5_000_000_000


async def test_no_secret_is_in_the_audit_or_anywhere_in_the_file(
    registry: Registry, site: Site
) -> None:
    secrets = await populate(registry)
    told = "".join(f"{e.before}{e.after}" for e in await registry.audit.list())
    await registry.close()
    site.database.close()
    kept = b"".join(file.read_bytes() for file in site.path.parent.iterdir())
    for secret in secrets:
        assert secret not in told
        assert secret.encode() not in kept


async def test_an_untouched_chain_verifies(registry: Registry) -> None:
    empty = await registry.audit.verify()
    assert (empty.ok, empty.entries, empty.head_sha256) == (True, 0, GENESIS.hex())
    await populate(registry)
    verdict = await registry.audit.verify()
    assert (verdict.ok, verdict.entries, verdict.problems) == (True, 14, ())
    assert verdict.head_sha256 == (await registry.audit.list())[-1].sha256


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("seq", [1, 7, 14])
async def test_every_changed_field_is_found_and_its_entry_named(
    registry: Registry, site: Site, field: str, seq: int
) -> None:
    await populate(registry)
    with site.as_an_intruder() as connection:
        (value,) = connection.execute(f"SELECT {field} FROM audit WHERE seq = ?", [seq]).fetchone()
        changed = (
            value + 1
            if isinstance(value, int)
            else bytes([value[0] ^ 1]) + value[1:]
            if isinstance(value, bytes)
            else "{}"
            if value is None
            else value + "x"
        )
        connection.execute(f"UPDATE audit SET {field} = ? WHERE seq = ?", [changed, seq])
    verdict = await registry.audit.verify()
    assert not verdict.ok
    assert f"entry {seq} " in verdict.problems[0]
    if field != "sha256":
        assert len(verdict.problems) == 1, "nobody else is blamed"


@pytest.mark.parametrize("field", ["before", "after"])
async def test_a_field_that_was_emptied_is_found(
    registry: Registry, site: Site, field: str
) -> None:
    await populate(registry)
    with site.as_an_intruder() as connection:
        connection.execute(f"UPDATE audit SET {field} = NULL WHERE seq = 8")
    assert "entry 8 " in (await registry.audit.verify()).problems[0]


@pytest.mark.parametrize("field", ["at_ns", "actor", "before", "after", "sha256"])
@pytest.mark.parametrize("value", [b"\xff\x00", "text", 1.5])
async def test_a_field_of_another_type_is_found(
    registry: Registry, site: Site, field: str, value: object
) -> None:
    await populate(registry)
    with site.as_an_intruder() as connection:
        connection.execute(f"UPDATE audit SET {field} = ? WHERE seq = 8", [value])
    assert "entry 8 " in (await registry.audit.verify()).problems[0]


async def test_a_forgotten_end_is_found(registry: Registry, site: Site) -> None:
    await populate(registry)
    with site.as_an_intruder() as connection:
        connection.execute("DELETE FROM state")
    (problem,) = (await registry.audit.verify()).problems
    assert "does not remember" in problem


async def test_a_missing_entry_is_found(registry: Registry, site: Site) -> None:
    await populate(registry)
    with site.as_an_intruder() as connection:
        connection.execute("DELETE FROM audit WHERE seq = 5")
    verdict = await registry.audit.verify()
    assert verdict.problems == ("between entry 4 and entry 6: entries are missing",)
    assert verdict.entries == 13


async def test_a_moved_number_is_found(registry: Registry, site: Site) -> None:
    await populate(registry)
    with site.as_an_intruder() as connection:
        connection.execute("UPDATE audit SET seq = 99 WHERE seq = 5")
    assert "between entry 4 and entry 6" in (await registry.audit.verify()).problems[0]


async def test_a_cut_off_end_is_found(registry: Registry, site: Site) -> None:
    await populate(registry)
    with site.as_an_intruder() as connection:
        connection.execute("DELETE FROM audit WHERE seq > 12")
    (problem,) = (await registry.audit.verify()).problems
    assert problem == "the chain ends at entry 12, but entry 14 was written last"


async def test_a_rewritten_end_is_found(registry: Registry, site: Site) -> None:
    """Someone who can compute the hashes still has to know where the chain's end is kept."""
    await populate(registry)
    *_, before, last = await registry.audit.list()
    forged = Entry(last.seq, last.at_ns, "nobody", *(getattr(last, f) for f in FIELDS[2:8]))
    with site.as_an_intruder() as connection:
        connection.execute(
            "UPDATE audit SET actor = 'nobody', sha256 = ? WHERE seq = ?",
            [link(bytes.fromhex(before.sha256), forged), last.seq],
        )
    assert (await registry.audit.verify()).problems == (
        "entry 14 is not the one that was written last",
    )


async def test_the_file_itself_refuses_changes(registry: Registry, site: Site) -> None:
    await populate(registry)
    connection = sqlite3.connect(site.path)
    for statement in ("DELETE FROM audit", "UPDATE audit SET actor = 'nobody'"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()
    assert (await registry.audit.verify()).ok


def test_the_chain_is_pinned_by_a_known_entry() -> None:
    """Canonical bytes never change: other programs verify them too."""
    entry = Entry(
        1, 1_800_000_000_000_000_000, "röot", "create", "tenant", "t", "n", None, '{"a":1}'
    )
    assert entry.canonical() == (
        b'[1,1800000000000000000,"r\\u00f6ot","create","tenant","t","n",null,"{\\"a\\":1}"]'
    )
    assert hashlib.sha256(b"crosslogic registry audit 1").digest() == GENESIS
    assert link(GENESIS, entry) == hashlib.sha256(GENESIS + entry.canonical()).digest()
    assert link(GENESIS, entry).hex() == (
        "ce0aceb4d6206a6dc0b9adf498b6dd6948e0e962d9e01fce6e4f6f33d174e1fa"
    )


def test_fields_cannot_run_into_each_other() -> None:
    one = Entry(1, 2, "ab", "c", "k", "i", "n", None, None)
    other = Entry(1, 2, "a", "bc", "k", "i", "n", None, None)
    null = Entry(1, 2, "ab", "c", "k", "i", "n", "null", None)
    assert len({link(GENESIS, entry) for entry in (one, other, null)}) == 3


async def test_limits_are_told_as_limits(registry: Registry) -> None:
    await registry.tenants.create(ACTOR, "acme")
    await registry.limits.set(ACTOR, Layer.TENANT, {"concurrency": 3}, tenant="acme")
    entry = (await registry.audit.list())[-1]
    assert entry.after is not None
    assert Limits(**json.loads(entry.after)) == Limits(concurrency=3)
