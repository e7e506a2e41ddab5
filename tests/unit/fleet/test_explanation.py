"""What is said of a deployment's place: the words that the engine of its best node takes."""

from dataclasses import replace

from appliance.domain.ids import DeploymentId, ModelId
from appliance.fleet.explanation import explain
from appliance.fleet.reconcile import Wanted
from appliance.registry.engines import Engine
from appliance.registry.generations import Generation
from appliance.wire.engine import EngineSettings
from tests.fakes.deployments import deployment_row
from tests.fakes.node_types import gpus, node

D1 = DeploymentId("dep_1")
GENERATION = Generation(
    D1, 1, ModelId("mod_1"), "/m.gguf", "sha256:0", 1, 4, 2048, False, EngineSettings(gpus=1)
)


def words(version: str | None) -> list[str]:
    versions = {} if version is None else {"llamacpp": version}
    machine = replace(node("a", gpus("a", "A100", 1, 80)), engine_versions=versions)
    row = deployment_row(model_id=None, engine=Engine.LLAMACPP)
    said = explain(row, Wanted([row], [], {(D1, 1): GENERATION}), {machine.row.id: machine}, None)
    assert said.nodes[0].chosen
    return list(said.arguments)


def test_an_embedded_llama_cpp_is_told_in_its_own_words() -> None:
    said = words("embedded 0.2.1")
    assert said[0] == "(embedded llama.cpp)"
    assert "--gpu-layers" in said
    assert "--n-gpu-layers" not in said


def test_a_llama_server_is_told_in_its_own() -> None:
    for version in ("7012", None):
        said = words(version)
        assert "--gpu-layers" not in said
        assert "--n-gpu-layers" in said
