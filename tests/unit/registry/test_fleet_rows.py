"""What a fleet of GPU nodes keeps in the registry, and how an older registry is brought to it."""

import sqlite3
from pathlib import Path

import pytest

from appliance.registry.errors import InvalidValue, NotFound
from appliance.registry.profiles import ProfileRow, shape_of
from appliance.registry.registry import Registry, open_database
from appliance.registry.replicas import Seat
from appliance.registry.schema import MIGRATIONS
from appliance.storage.database import migrate
from appliance.wire.engine import EngineSettings
from tests.fakes.registry import Site
from tests.fakes.tiny_gguf import write_tiny_gguf

ACTOR = "uid 1000 (tests)"


@pytest.fixture
async def model(registry: Registry, tmp_path: Path) -> str:
    path = write_tiny_gguf(tmp_path / "m.gguf")
    return (await registry.models.register(ACTOR, "m", path)).id


async def test_an_older_registry_keeps_its_nodes_and_deployments_through_the_upgrade(
    tmp_path: Path,
) -> None:
    path = tmp_path / "registry.db"
    migrate(path, MIGRATIONS[:1])
    with sqlite3.connect(path) as old:
        old.execute("INSERT INTO nodes VALUES ('nod_1', 'a', 'local', 1, 5, NULL)")
        old.execute("INSERT INTO nodes VALUES ('nod_2', 'b', 'local', 0, 5, NULL)")
        old.execute(
            "INSERT INTO models VALUES ('mod_1', 'm', '/m.gguf', 'sha256:1', 9, '', '', 'llama',"
            " 512, 0, 5, NULL)"
        )
        old.execute(
            "INSERT INTO deployments VALUES ('dep_1', 'chat', 'llamacpp', 'mod_1', NULL, NULL,"
            " NULL, 1, 4, 512, 0, '[\"chat\"]', 'local', 0, 3, 5, NULL)"
        )
        old.execute("INSERT INTO replicas VALUES ('rep_1', 'dep_1', 0, 'nod_2', 5, NULL)")
    old.close()
    site = Site(path)
    registry = site.registry
    try:
        wishes = {row.name: row.wish for row in await registry.nodes.list()}
        assert wishes == {"a": "maintenance", "b": "serving"}
        (row,) = await registry.deployments.list()
        assert (row.settings, row.strategy, row.pins, row.idle_s) == (
            EngineSettings(),
            "auto",
            (),
            None,
        )
        (replica,) = await registry.replicas.list()
        assert (replica.generation, replica.seats) == (3, (Seat(replica.node_id or ""),))  # type: ignore[arg-type]  # an id
        (generation,) = await registry.generations.list()
        assert (generation.number, generation.parallel) == (3, 4)
    finally:
        site.close()
    open_database(path).close()  # and again: nothing is left to be done


async def test_a_change_makes_a_generation_and_the_one_before_is_kept_while_it_runs(
    registry: Registry, model: str
) -> None:
    row = await registry.deployments.create(ACTOR, "chat", "llamacpp", model=model, replicas=2)
    before = await registry.replicas.list()
    changed = await registry.deployments.update(
        ACTOR, "chat", parallel=9, settings=EngineSettings(gpus=1)
    )
    assert changed.generation == 2
    assert await registry.replicas.list() == before, "they serve until they are replaced"
    known = {g.number: g for g in await registry.generations.list()}
    assert [(n, known[n].parallel, known[n].settings.gpus) for n in (1, 2)] == [
        (1, 4, 0),
        (2, 9, 1),
    ]
    await registry.replicas.succeed("fleet", row.id, 0)
    await registry.replicas.remove("fleet", before[0].id)
    rows = await registry.replicas.list()
    assert [(r.ordinal, r.generation) for r in rows] == [(0, 2), (1, 1)]
    await registry.replicas.remove("fleet", before[1].id)
    assert {g.number for g in await registry.generations.list()} == {2}
    with pytest.raises(NotFound):
        await registry.replicas.remove("fleet", before[1].id)
    await registry.deployments.update(ACTOR, "chat", replicas=1)
    await registry.replicas.succeed("fleet", row.id, 1)  # of a plan that was overtaken
    assert [r.ordinal for r in await registry.replicas.list()] == [0]


async def test_what_needs_no_new_process_makes_no_generation(
    registry: Registry, model: str
) -> None:
    node = await registry.nodes.create(ACTOR, "n1")
    await registry.deployments.create(ACTOR, "chat", "llamacpp", model=model)
    row = await registry.deployments.update(
        ACTOR, "chat", strategy="surge", pins=["n1"], idle_s=60, upstream_model="other", replicas=2
    )
    assert (row.generation, row.pins, row.idle_s) == (1, (node.id,), 60)
    row = await registry.deployments.update(ACTOR, "chat", pins=[], idle_s=0)
    assert (row.generation, row.pins, row.idle_s) == (1, (), None)
    with pytest.raises(NotFound):
        await registry.deployments.update(ACTOR, "chat", pins=["n2"])


async def test_other_weights_under_the_same_name(
    registry: Registry, model: str, tmp_path: Path
) -> None:
    other = await registry.models.register(ACTOR, "other", write_tiny_gguf(tmp_path / "o.gguf"))
    await registry.deployments.create(ACTOR, "chat", "llamacpp", model=model)
    row = await registry.deployments.update(ACTOR, "chat", model="other")
    assert (row.model_id, row.model_path, row.generation) == (other.id, other.path, 2)
    assert await registry.deployments.get("chat") == row


@pytest.mark.parametrize(
    "settings",
    [
        EngineSettings(gpus=-1),
        EngineSettings(gpus=65),
        EngineSettings(gpus=1, nodes=2),
        EngineSettings(gpu_memory_fraction=1.5),
        EngineSettings(gpu_memory_fraction=float("nan")),
        EngineSettings(sleep=True),
        EngineSettings(gpu_layers=-1),
        EngineSettings(dtype="a\nb"),
        EngineSettings(dtype="--api-key=x"),
        EngineSettings(queue_max=0),
    ],
)
async def test_settings_that_cannot_be_meant_are_refused(
    registry: Registry, model: str, settings: EngineSettings
) -> None:
    with pytest.raises(InvalidValue):
        await registry.deployments.create(ACTOR, "c", "llamacpp", model=model, settings=settings)
    assert await registry.deployments.list() == []


async def test_an_external_engine_has_no_settings_pins_or_idleness(registry: Registry) -> None:
    await registry.nodes.create(ACTOR, "n1")
    for more in ({"settings": EngineSettings(gpus=1)}, {"pins": ["n1"]}, {"idle_s": 60}):
        with pytest.raises(InvalidValue):
            await registry.deployments.create(
                ACTOR,
                "far",
                "external",
                url="http://127.0.0.1:9",
                **more,  # type: ignore[arg-type]  # one of each
            )


async def test_seats_survive_and_a_node_that_is_removed_takes_them_away(
    registry: Registry, model: str
) -> None:
    await registry.deployments.create(ACTOR, "chat", "llamacpp", model=model)
    (replica,) = await registry.replicas.list()
    nodes = [await registry.nodes.create(ACTOR, name) for name in ("a", "b")]
    seats = (Seat(nodes[0].id, ("GPU-1", "GPU-2")), Seat(nodes[1].id, ("GPU-3",)))
    placed = await registry.replicas.place("fleet", replica.id, seats)
    assert placed.seats == seats
    assert await registry.replicas.list() == [placed]
    await registry.nodes.delete(ACTOR, "a")
    assert (await registry.replicas.list())[0].seats == ()


async def test_profiles_are_kept_without_being_audited(registry: Registry, model: str) -> None:
    await registry.deployments.create(ACTOR, "chat", "llamacpp", model=model)
    (generation,) = await registry.generations.list()
    entries = len(await registry.audit.list())
    shape = shape_of("llamacpp", generation)
    first = ProfileRow(generation.model_digest, shape, "1 × L4", "b1", 5, 1_000, 90, 900, 1)
    second = ProfileRow(generation.model_digest, shape, "1 × L4", "b2", 6, 1_100, 91, None, 2)
    await registry.profiles.keep("fleet", first)
    await registry.profiles.keep("fleet", second)
    assert await registry.profiles.list() == [second]
    assert len(await registry.audit.list()) == entries
    changed = await registry.deployments.update(ACTOR, "chat", parallel=2)
    newest = next(g for g in await registry.generations.list() if g.number == changed.generation)
    assert shape_of("llamacpp", newest) != shape
