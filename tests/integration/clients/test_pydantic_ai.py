"""pydantic-ai, where it is installed: an agent with structured output over the endpoint."""

import asyncio

import pytest
from openai import AsyncOpenAI
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

    async with AsyncOpenAI(base_url=site.base_url, api_key=key.secret, max_retries=0) as client:
        model = OpenAIChatModel("fault", provider=OpenAIProvider(openai_client=client))
        plain = await Agent(model).run("Say something.")
        assert plain.output
        assert plain.usage.output_tokens > 0
        structured = await Agent(model, output_type=NativeOutput(City)).run("Which city?")
        assert structured.output == City(city="Bern", people=134591)
    await asyncio.sleep(0)  # a closed transport is let go in the loop's next turn
