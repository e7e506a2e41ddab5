"""pydantic-ai, where it is installed: an agent with structured output over the endpoint."""

import pytest
from pydantic import BaseModel

from tests.fakes.site import Key, Site

pytest.importorskip("pydantic_ai", reason="the package pydantic-ai-slim is not installed")


class City(BaseModel):
    city: str
    people: int


async def test_an_agent(site: Site, key: Key) -> None:
    from pydantic_ai import Agent, NativeOutput  # noqa: PLC0415  # may be absent
    from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415
    from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415

    provider = OpenAIProvider(base_url=site.base_url, api_key=key.secret)
    model = OpenAIChatModel("fault", provider=provider)
    plain = await Agent(model).run("Say something.")
    assert plain.output
    assert plain.usage.output_tokens > 0
    structured = await Agent(model, output_type=NativeOutput(City)).run("Which city?")
    assert structured.output == City(city="Bern", people=134591)
