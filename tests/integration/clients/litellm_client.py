"""What the test asks litellm to do; run by the Python of litellm's own environment.

Reads {"base_url", "key", "model"} from standard input, writes what it saw as JSON.
"""

import asyncio
import json
import sys
from typing import Any

import litellm

litellm.telemetry = False
litellm.suppress_debug_info = True
asked = json.load(sys.stdin)
common: dict[str, Any] = {
    "api_base": asked["base_url"],
    "api_key": asked["key"],
    "num_retries": 0,
    "max_retries": 0,
    "timeout": 30,
}
chat: dict[str, Any] = {
    **common,
    "model": f"openai/{asked['model']}",
    "messages": [{"role": "user", "content": "Say something about the river."}],
    "max_tokens": 6,
}
seen: dict[str, Any] = {}

answer = litellm.completion(**chat)
seen["chat"] = {
    "text": answer.choices[0].message.content,
    "input": answer.usage.prompt_tokens,
    "output": answer.usage.completion_tokens,
}

chunks = list(litellm.completion(**chat, stream=True, stream_options={"include_usage": True}))
counted = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
seen["stream"] = {
    "text": "".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
    "output": counted[-1].completion_tokens,
}


async def asynchronous() -> str:
    answer = await litellm.acompletion(**chat)
    return str(answer.choices[0].message.content)


seen["async"] = asyncio.run(asynchronous())

vectors = litellm.embedding(
    **common, model=f"openai/{asked['vectors']}", input=["a", "b"], encoding_format="float"
)
seen["vectors"] = len(vectors.data)

errors = {}
for name, wrong in {
    "key": {"api_key": "clsk_live_wrong"},
    "model": {"model": "openai/gpt-99"},
}.items():
    try:
        litellm.completion(**{**chat, **wrong})
    except Exception as error:  # noqa: BLE001  # whatever it raises is what the test compares
        errors[name] = type(error).__name__
seen["errors"] = errors
json.dump(seen, sys.stdout)
