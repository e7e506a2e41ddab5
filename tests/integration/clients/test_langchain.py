"""langchain-openai: chat models, tools, structured output, streams and embeddings."""

from typing import Any

import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.fakes.engine import FaultEngine
from tests.fakes.engine_answers import EMBEDDING_WIDTH
from tests.fakes.site import Key, Site


class City(BaseModel):
    """A city and its people."""

    city: str
    people: int


def chat_model(site: Site, key: Key, model: str, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=site.base_url,
        api_key=SecretStr(key.secret),
        model=model,
        max_retries=0,
        timeout=30,
        max_completion_tokens=6,
        **more,
    )


@pytest.mark.parametrize("model", ["fault", "tiny"])
def test_chat(site: Site, key: Key, model: str) -> None:
    answer = chat_model(site, key, model).invoke("Say something about the river.")
    assert answer.content
    assert answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] <= 6


@pytest.mark.parametrize("model", ["fault", "tiny"])
def test_streams(site: Site, key: Key, model: str) -> None:
    chunks = list(chat_model(site, key, model, stream_usage=True).stream("Say something."))
    assert "".join(str(chunk.content) for chunk in chunks)
    counted = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert len(counted) == 1
    assert 0 < counted[0]["output_tokens"] <= 6


async def test_many_at_once(site: Site, key: Key) -> None:
    answers = await chat_model(site, key, "fault").abatch([f"question {n}" for n in range(10)])
    assert all(answer.content for answer in answers)


def test_tools(site: Site, key: Key, engine: FaultEngine) -> None:
    answer = chat_model(site, key, "fault").bind_tools([City]).invoke("Which city?")
    assert answer.tool_calls[0]["name"] == "City"
    assert engine.requests[-1].json["tools"][0]["function"]["name"] == "City"


def test_structured_output(site: Site, key: Key) -> None:
    structured = chat_model(site, key, "fault").with_structured_output(City, method="json_schema")
    assert structured.invoke("Which city?") == City(city="Bern", people=134591)


def test_embeddings(site: Site, key: Key) -> None:
    embeddings = OpenAIEmbeddings(
        base_url=site.base_url,
        api_key=SecretStr(key.secret),
        model="fault",
        check_embedding_ctx_length=False,  # else it asks the internet for OpenAI's tokenizer
        max_retries=0,
    )
    vectors = embeddings.embed_documents(["the river", "the stone"])
    assert vectors[1] == [1.0 + step / 8 for step in range(EMBEDDING_WIDTH)]
