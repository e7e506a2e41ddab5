"""Models by their files, deployments by their parts, replicas by their count."""

import asyncio
import hashlib
import os
import sqlite3
from pathlib import Path

import pytest

from appliance.domain.usage import Operation
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.errors import (
    AlreadyExists,
    InUse,
    InvalidValue,
    ModelUnreadable,
    NotFound,
)
from appliance.registry.registry import Registry
from appliance.registry.replicas import Seat
from appliance.security.errors import SealBroken
from tests.fakes.registry import ACTOR, Site
from tests.fakes.tiny_gguf import CONTEXT_TOKENS, write_tiny_gguf

URL = "http://127.0.0.1:9000"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "Tiny-1M.gguf")


@pytest.fixture(scope="module")
def content(weights: Path) -> bytes:
    return weights.read_bytes()


async def external(registry: Registry, name: str = "gpt") -> DeploymentRow:
    return await registry.deployments.create(ACTOR, name, "external", url=URL)


# --- models


async def test_a_model_is_known_by_its_digest(
    registry: Registry, weights: Path, content: bytes
) -> None:
    steps: list[tuple[int, int]] = []
    row = await registry.models.register(
        ACTOR,
        "org/tiny:1m",
        weights,
        licence="MIT",
        progress=lambda done, total: steps.append((done, total)),
    )
    assert row.digest == "sha256:" + hashlib.sha256(content).hexdigest()
    assert (row.size_bytes, row.path) == (len(content), str(weights))
    assert (row.architecture, row.family, row.licence) == ("llama", "llama", "MIT")
    assert row.context_tokens == CONTEXT_TOKENS
    assert steps[-1] == (len(content), len(content))
    assert await registry.models.get("org/tiny:1m") == await registry.models.get(row.id) == row
    with pytest.raises(AlreadyExists):
        await registry.models.register(ACTOR, "org/tiny:1m", weights)


async def test_a_path_without_a_name_registers_once(registry: Registry, weights: Path) -> None:
    first = await registry.models.register(ACTOR, None, weights)
    assert first.name == "Tiny-1M"
    assert await registry.models.register(ACTOR, None, weights) == first
    assert await registry.models.list() == [first]


async def test_another_file_of_the_same_name_is_another_model(
    registry: Registry, weights: Path, tmp_path: Path
) -> None:
    await registry.models.register(ACTOR, None, weights)
    other = write_tiny_gguf(tmp_path / weights.name, seed=8)
    with pytest.raises(AlreadyExists) as caught:
        await registry.models.register(ACTOR, None, other)
    assert "Choose another name" in caught.value.next_step


async def test_models_that_cannot_be_read(
    registry: Registry, content: bytes, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(content[:5_000])
    page = tmp_path / "page.gguf"
    page.write_text("<html>404</html>")
    cases = [
        (tmp_path / "missing.gguf", "is not there"),
        (tmp_path, "name one of them"),
        (cut, "copied or downloaded completely"),
        (page, "does not begin"),
        (Path("/proc/self/mem"), "Cannot read|not a whole"),
    ]
    for path, says in cases:
        with pytest.raises(ModelUnreadable, match=says) as caught:
            await registry.models.register(ACTOR, "m", path)
        assert str(path) in caught.value.message
        assert caught.value.next_step
    with pytest.raises(InvalidValue, match="not complete"):
        await registry.models.register(ACTOR, "m", Path("models/tiny.gguf"))
    assert await registry.models.list() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_that_may_not_be_read(registry: Registry, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "shut.gguf")
    path.chmod(0)
    with pytest.raises(ModelUnreadable, match="Permission denied"):
        await registry.models.register(ACTOR, "m", path)


async def test_a_registration_can_be_abandoned(registry: Registry, tmp_path: Path) -> None:
    """The thread that reads a large file ends soon after its caller has gone."""
    path = write_tiny_gguf(tmp_path / "large.gguf")
    with path.open("r+b") as file:
        file.truncate(64 * 1024 * 1024)  # sparse, behind the weights
    loop = asyncio.get_running_loop()
    began = asyncio.Event()
    steps: list[int] = []

    def progress(done: int, _: int) -> None:
        steps.append(done)
        loop.call_soon_threadsafe(began.set)

    task = asyncio.create_task(registry.models.register(ACTOR, "m", path, progress=progress))
    await asyncio.wait_for(began.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await loop.shutdown_default_executor()
    assert steps[-1] < path.stat().st_size


async def test_models_are_described_anew_and_go_when_unused(
    registry: Registry, weights: Path
) -> None:
    await registry.models.register(ACTOR, "m", weights)
    row = await registry.models.update(ACTOR, "m", name="n", family="tiny", licence="")
    assert (row.name, row.family, row.licence) == ("n", "tiny", "")
    with pytest.raises(InvalidValue):
        await registry.models.update(ACTOR, "n", licence="two\nlines")
    await registry.deployments.create(ACTOR, "chat", "llamacpp", model="n")
    with pytest.raises(InUse) as caught:
        await registry.models.delete(ACTOR, "n")
    assert "deployed as chat" in caught.value.message
    assert "cic deployment delete chat" in caught.value.next_step
    await registry.deployments.delete(ACTOR, "chat")
    await registry.models.delete(ACTOR, "n")
    assert await registry.models.list() == []
    # The file is not ours to delete: it can be registered again.
    again = await registry.models.register(ACTOR, "n", weights)
    assert again.id != row.id


# --- deployments


async def test_a_deployment_of_a_model(registry: Registry, weights: Path) -> None:
    model = await registry.models.register(ACTOR, "m", weights)
    row = await registry.deployments.create(ACTOR, "org/chat:v1", "llamacpp", model="m")
    assert (row.model_id, row.model_path, row.model_digest) == (model.id, model.path, model.digest)
    assert (row.url, row.has_api_key, row.generation, row.replicas) == (None, False, 1, 1)
    assert row.context_tokens == CONTEXT_TOKENS, "what the model has, where that is less"
    assert row.operations == {
        Operation.CHAT,
        Operation.COMPLETIONS,
        Operation.RESPONSES,
        Operation.MESSAGES,
        Operation.COUNT_TOKENS,
        Operation.TOKENIZE,
        Operation.DETOKENIZE,
    }
    embedding = await registry.deployments.create(
        ACTOR, "embed", "llamacpp", model=model.id, embedding=True
    )
    assert embedding.operations == {
        Operation.EMBEDDINGS,
        Operation.TOKENIZE,
        Operation.DETOKENIZE,
    }
    assert await registry.deployments.get(row.id) == row
    assert [d.name for d in await registry.deployments.list()] == ["embed", "org/chat:v1"]


async def test_an_external_deployment_seals_its_key(registry: Registry, site: Site) -> None:
    row = await registry.deployments.create(
        ACTOR, "gpt", "external", url=URL + "/v1/", api_key="sk-1", upstream_model="gpt-4"
    )
    assert (row.url, row.has_api_key, row.upstream_model) == (URL + "/v1", True, "gpt-4")
    assert row.operations == set(Operation) - {Operation.TRANSCRIPTIONS}
    assert await registry.deployments.api_key("gpt") == "sk-1"
    changed = await registry.deployments.update(ACTOR, "gpt", api_key="sk-2")
    assert changed.generation == row.generation + 1, "the fleet must hear of a new key"
    assert await registry.deployments.api_key(row.id) == "sk-2"
    bare = await registry.deployments.update(ACTOR, "gpt", api_key="", upstream_model="")
    assert (bare.has_api_key, bare.upstream_model) == (False, None)
    assert await registry.deployments.api_key("gpt") is None
    await registry.deployments.update(ACTOR, "gpt", api_key="sk-3")
    with site.as_an_intruder() as connection:  # a sealed key moved to where it is sent elsewhere
        await external(registry, "evil")
        connection.execute(
            "UPDATE deployments SET sealed_api_key ="
            " (SELECT sealed_api_key FROM deployments WHERE name = 'gpt') WHERE name = 'evil'"
        )
    with pytest.raises(SealBroken):
        await registry.deployments.api_key("evil")


async def test_a_deleted_deployment_keeps_no_key(registry: Registry, site: Site) -> None:
    await registry.deployments.create(ACTOR, "gpt", "external", url=URL, api_key="sk-1")
    await registry.deployments.delete(ACTOR, "gpt")
    with site.as_an_intruder() as connection:
        kept = connection.execute("SELECT name, sealed_api_key FROM deployments").fetchall()
    assert kept == [("gpt", None)]
    with pytest.raises(NotFound):
        await registry.deployments.api_key("gpt")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "engine:8000",
        "ftp://engine",
        "file:///etc/passwd",
        "http://",
        "http://:80",
        "http://engine:0",
        "http://engine:99999",
        "http://engine/?key=1",
        "http://engine/#x",
        "http://user:secret@engine",
        "http://user@engine",
        "http://eng ine",
        "http://engine\r\nX: y",
        "http://[::1",
        "http://engine/" + "x" * 3_000,
        "http://ümlaut",
    ],
)
async def test_urls_that_are_refused(registry: Registry, url: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        await registry.deployments.create(ACTOR, "gpt", "external", url=url)
    assert "secret" not in caught.value.message, "what may hold a password is not repeated"
    row = await external(registry)
    with pytest.raises(InvalidValue):
        await registry.deployments.update(ACTOR, row.id, url=url)
    assert await registry.deployments.get(row.id) == row


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.169.254.",
        "2852039166",  # the same in one number
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "Metadata.Google.Internal.",
        "224.0.0.1",
        "0.0.0.0",
        "[::]",
    ],
)
async def test_link_local_and_metadata_addresses_are_refused(registry: Registry, host: str) -> None:
    with pytest.raises(InvalidValue, match="link-local"):
        await registry.deployments.create(ACTOR, "gpt", "external", url=f"http://{host}:80/v1")
    row = await external(registry)
    with pytest.raises(InvalidValue, match="link-local"):
        await registry.deployments.update(ACTOR, row.id, url=f"http://{host}/")


@pytest.mark.parametrize(
    "url", ["http://engine", "https://engine/base", "http://[::1]:8000/v1", "http://10.0.0.1:80"]
)
async def test_urls_that_are_accepted(registry: Registry, url: str) -> None:
    row = await registry.deployments.create(ACTOR, "gpt", "external", url=url)
    assert row.url == url


async def test_parts_that_do_not_fit_together(registry: Registry, weights: Path) -> None:
    await registry.models.register(ACTOR, "m", weights)
    create = registry.deployments.create
    wrong = [
        create(ACTOR, "d", "external"),
        create(ACTOR, "d", "external", url=URL, model="m"),
        create(ACTOR, "d", "llamacpp"),
        create(ACTOR, "d", "llamacpp", model="m", url=URL),
        create(ACTOR, "d", "llamacpp", model="m", api_key="sk"),
        create(ACTOR, "d", "vllm", model="m"),
        create(ACTOR, "d", "LLAMACPP", model="m"),
        create(ACTOR, "not a name", "external", url=URL),
        create(ACTOR, "d", "external", url=URL, operations=[]),
        create(ACTOR, "d", "external", url=URL, api_key="two\nlines"),
        create(ACTOR, "d", "external", url=URL, api_key="é"),
        create(ACTOR, "d", "llamacpp", model="m", replicas=-1),
        create(ACTOR, "d", "llamacpp", model="m", replicas=100_000),
        create(ACTOR, "d", "llamacpp", model="m", parallel=0),
        create(ACTOR, "d", "llamacpp", model="m", context_tokens=0),
        create(ACTOR, "d", "llamacpp", model="m", context_tokens=CONTEXT_TOKENS + 1),
    ]
    for attempt in wrong:
        with pytest.raises(InvalidValue) as caught:
            await attempt
        assert caught.value.next_step
    with pytest.raises(NotFound):
        await create(ACTOR, "d", "llamacpp", model="absent")
    assert await registry.deployments.list() == []
    await external(registry, "d")
    with pytest.raises(AlreadyExists):
        await external(registry, "d")


async def test_the_generation_rises_with_what_needs_a_new_process(
    registry: Registry, weights: Path
) -> None:
    await registry.models.register(ACTOR, "m", weights)
    await registry.deployments.create(ACTOR, "d", "llamacpp", model="m")
    update = registry.deployments.update
    assert (await update(ACTOR, "d", replicas=3)).generation == 1
    assert (await update(ACTOR, "d", operations=[Operation.CHAT])).generation == 1
    assert (await update(ACTOR, "d", parallel=4)).generation == 1, "4 it was before"
    assert (await update(ACTOR, "d", parallel=8)).generation == 2
    assert (await update(ACTOR, "d", context_tokens=512)).generation == 3
    assert (await registry.deployments.suspend(ACTOR, "d")).generation == 3
    assert (await registry.deployments.resume(ACTOR, "d")).generation == 3
    with pytest.raises(InvalidValue):
        await update(ACTOR, "d", url=URL)


# --- replicas and nodes


async def test_an_external_engine_is_one_replica_or_none(registry: Registry) -> None:
    await external(registry)
    with pytest.raises(InvalidValue, match="one replica"):
        await registry.deployments.update(ACTOR, "gpt", replicas=2)
    assert (await registry.deployments.update(ACTOR, "gpt", replicas=0)).replicas == 0
    with pytest.raises(InvalidValue, match="one replica"):
        await registry.deployments.create(ACTOR, "more", "external", url=URL, replicas=2)


async def test_replicas_follow_the_count_and_keep_their_ids(
    registry: Registry, weights: Path
) -> None:
    await registry.models.register(ACTOR, "m", weights)
    row = await registry.deployments.create(ACTOR, "gpt", "llamacpp", model="m")
    (only,) = await registry.replicas.list()
    assert (only.deployment_id, only.ordinal, only.node_id) == (row.id, 0, None)
    await registry.deployments.update(ACTOR, "gpt", replicas=3)
    three = await registry.replicas.list()
    assert [replica.ordinal for replica in three] == [0, 1, 2]
    assert three[0] == only
    await registry.deployments.update(ACTOR, "gpt", replicas=1)
    assert await registry.replicas.list() == [only]
    await registry.deployments.update(ACTOR, "gpt", replicas=2)
    again = await registry.replicas.list()
    assert again[0] == only
    assert again[1].id not in {replica.id for replica in three}, "a new process, a new id"
    await registry.deployments.update(ACTOR, "gpt", replicas=0)
    assert await registry.replicas.list() == []
    await registry.deployments.delete(ACTOR, "gpt")
    assert await registry.replicas.list() == []


async def test_a_replica_is_placed_and_comes_off_with_its_node(registry: Registry) -> None:
    await external(registry)
    (replica,) = await registry.replicas.list()
    node = await registry.nodes.create(ACTOR, "node-1", region="eu")
    placed = await registry.replicas.place("fleet", replica.id, [Seat(node.id, ("GPU-1",))])
    assert (placed.node_id, placed.gpu_uuids) == (node.id, ("GPU-1",))
    assert await registry.replicas.list() == [placed]
    await registry.replicas.place("fleet", replica.id, [Seat(node.id, ("GPU-1",))])
    assert [e.action for e in await registry.audit.list()].count("place") == 1
    await registry.nodes.delete(ACTOR, "node-1")
    (left,) = await registry.replicas.list()
    assert left.seats == left.gpu_uuids == ()
    with pytest.raises(NotFound):
        await registry.replicas.place("fleet", replica.id, [Seat(node.id, ("GPU-1",))])
    with pytest.raises(NotFound):
        await registry.replicas.place("fleet", node.id, ())  # type: ignore[arg-type]  # on purpose


async def test_nodes_are_known_by_name(registry: Registry) -> None:
    first = await registry.nodes.ensure("agent", "node-1")
    assert await registry.nodes.ensure("agent", "node-1") == first
    assert first.region == "local"
    with pytest.raises(AlreadyExists):
        await registry.nodes.create(ACTOR, "node-1")
    moved = await registry.nodes.update(ACTOR, "node-1", name="rack-1", region="eu")
    assert (moved.id, moved.name, moved.region) == (first.id, "rack-1", "eu")
    drained = await registry.nodes.wish(ACTOR, "rack-1", "draining", reason="new fans")
    assert (drained.wish, drained.wish_reason, drained.wish_actor) == (
        "draining",
        "new fans",
        ACTOR,
    )
    assert await registry.nodes.wish(ACTOR, "rack-1", "draining", reason="new fans") == drained
    assert (await registry.nodes.wish(ACTOR, first.id, "serving")).wish == "serving"
    actions = [entry.action for entry in await registry.audit.list()]
    assert (actions.count("drain"), actions.count("resume")) == (1, 1)
    with pytest.raises(InvalidValue, match="reason"):
        await registry.nodes.wish(ACTOR, first.id, "draining", reason="a\nb")
    await registry.nodes.delete(ACTOR, "rack-1")
    assert await registry.nodes.list() == []
    again = await registry.nodes.ensure("agent", "rack-1")
    assert again.id != first.id
    for wrong in ("", "a b", "../etc"):
        with pytest.raises(InvalidValue):
            await registry.nodes.ensure("agent", wrong)


async def test_foreign_keys_are_enforced(registry: Registry, site: Site) -> None:
    def orphan(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO replicas (id, deployment_id, ordinal, created_at_ns)"
            " VALUES ('r', 'dep_none', 0, 0)"
        )

    with pytest.raises(sqlite3.IntegrityError):
        await site.database.write(orphan)
