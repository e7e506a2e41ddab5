"""Rows of deployments as tests need them."""

from dataclasses import replace

from appliance.domain.ids import DeploymentId, ModelId
from appliance.domain.usage import Operation
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.engines import Engine


def deployment_row(**changes: object) -> DeploymentRow:
    """One replica of a small model with llama.cpp, unless `changes` says otherwise."""
    row = DeploymentRow(
        id=DeploymentId("dep_1"),
        name="m",
        engine=Engine.LLAMACPP,
        model_id=ModelId("mod_1"),
        model_name="m",
        model_path="/m.gguf",
        model_digest="sha256:0",
        url=None,
        has_api_key=False,
        upstream_model=None,
        replicas=1,
        parallel=4,
        context_tokens=512,
        embedding=False,
        operations=frozenset({Operation.CHAT}),
        region="local",
        suspended=False,
        generation=1,
        created_at_ns=0,
    )
    return replace(row, **changes)  # type: ignore[arg-type]  # a test's shorthand
