"""A process that behaves as vLLM's server was seen to: its figures, its health, its signals.

`vllm --version` and `vllm serve MODEL …`, with a second process beside it, as real ones have, that
outlives a front process killed by SIGKILL. Its health stays green while it hangs. `--fake-control
FILE` names a JSON file that is read anew for every token:

    {"token_s": 0.01, "hang": false, "engine_dead": false,
     "start_s": 0, "start": ""}

With "stale" it hangs as a process does that hangs behind its front: it counts no requests.

`start` "kv_cache", "cuda_memory" or "arguments": it ends with what the real one prints then.
"""

import argparse
import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO

from aiohttp import web

VERSION = "0.33.0"
_ENDS = {
    "kv_cache": (
        "(EngineCore pid=7) ValueError: To serve at least one request with the models's max seq"
        " len (131072), (16.00 GiB KV cache is needed, which is larger than the available KV cache"
        " memory (7.41 GiB). Based on the available memory, the estimated maximum model length is"
        " 60688. Try increasing `gpu_memory_utilization` or decreasing `max_model_len`.",
        1,
    ),
    "cuda_memory": (
        "(EngineCore pid=7) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 896.00"
        " MiB. GPU 0 has a total capacity of 23.64 GiB of which 312.44 MiB is free.",
        1,
    ),
    "arguments": ("vllm serve: error: unrecognized arguments: --of-another-year", 2),
}
_ROOT_CAUSE = (
    "(APIServer pid=6) RuntimeError: Engine core initialization failed. See root cause above."
    " Failed core proc(s): {}"
)


def write_vllm_program(folder: Path) -> Path:
    """A program `vllm` in `folder` that is this module, for an agent to find."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "vllm"
    root = Path(__file__).parents[2]
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH="{root}:$PYTHONPATH" exec "{sys.executable}"'
        ' -m tests.fakes.vllm_process "$@"\n'
    )
    program.chmod(0o755)
    return program


class Server:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.prompt = self.generated = self.steps = self.running = self.waiting = 0
        self.asleep = False
        self.slots = asyncio.Semaphore(arguments.max_num_seqs)
        self.memory = Path(f"/dev/shm/psm_{os.getpid():08x}")
        self.shared: BinaryIO | None = None
        self.engine: subprocess.Popen[bytes] | None = None

    def control(self) -> dict[str, Any]:
        if self.arguments.fake_control is None:
            return {}
        try:
            told: dict[str, Any] = json.loads(Path(self.arguments.fake_control).read_text())
        except (OSError, ValueError):
            return {}
        return told

    def start(self) -> None:
        """The engine's own process; raises SystemExit when it is told to fail."""
        time.sleep(self.control().get("start_s", 0.0))
        end = self.control().get("start")
        if end:
            text, code = _ENDS[end]
            sys.stderr.write(f"{text}\n{_ROOT_CAUSE if code == 1 else ''}\n")
            sys.exit(code)
        self.shared = self.memory.open("wb")  # held, as queues between processes are
        self.engine = subprocess.Popen(
            [sys.executable, "-c", "import signal, time\nwhile True: time.sleep(60)"]
        )

    def stop(self) -> None:
        if self.engine is not None:
            self.engine.kill()
            self.engine.wait()
        if self.shared is not None:
            self.shared.close()
        self.memory.unlink(missing_ok=True)

    def dead(self) -> bool:
        return bool(self.control().get("engine_dead")) or (
            self.engine is not None and self.engine.poll() is not None
        )

    async def token(self) -> None:
        while self.control().get("hang"):  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.05)
        await asyncio.sleep(self.control().get("token_s", 0.002))
        if self.dead():
            raise EngineDead
        self.generated += 1
        self.steps += 1

    # Routes.

    async def health(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self.dead() else 200)

    async def metrics(self, _: web.Request) -> web.Response:
        labels = f'engine="0",model_name="{self.arguments.served_model_name}"'
        figures = {
            # A process that hangs behind its front tells nothing new of what the front took in.
            "vllm:num_requests_running": 0 if self.control().get("stale") else self.running,
            "vllm:num_requests_waiting": 0 if self.control().get("stale") else self.waiting,
            "vllm:kv_cache_usage_perc": self.running / self.arguments.max_num_seqs,
            "vllm:prompt_tokens_total": self.prompt,
            "vllm:generation_tokens_total": self.generated,
            "vllm:iteration_tokens_total_count": self.steps,
        }
        lines = [f"{name}{{{labels}}} {float(value)}" for name, value in figures.items()]
        for state, on in (("awake", not self.asleep), ("weights_offloaded", self.asleep)):
            labelled = f'{labels},sleep_state="{state}"'
            lines.append(f"vllm:engine_sleep_state{{{labelled}}} {float(on)}")
        return web.Response(text="\n".join(["# HELP of it all", *lines, ""]))

    async def models(self, _: web.Request) -> web.Response:
        model = {
            "id": self.arguments.served_model_name,
            "object": "model",
            "max_model_len": self.arguments.max_model_len,
        }
        return web.json_response({"object": "list", "data": [model]})

    async def load(self, _: web.Request) -> web.Response:
        return web.json_response({"server_load": self.running + self.waiting})

    async def sleep(self, _: web.Request) -> web.Response:
        self.asleep = True
        return web.Response()

    async def wake(self, _: web.Request) -> web.Response:
        self.asleep = False
        return web.Response()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = sum(len(str(message["content"]).split()) + 3 for message in body["messages"])
        wanted = body.get("max_tokens") or 16
        self.waiting += 1
        async with self.slots:
            self.waiting -= 1
            self.running += 1
            self.prompt += prompt
            try:
                if body.get("stream"):
                    return await self._stream(request, prompt, wanted)
                for _ in range(wanted):
                    await self.token()
                return web.json_response(self._answer(prompt, wanted))
            except EngineDead:
                return web.json_response({"error": {"message": "EngineDeadError"}}, status=500)
            finally:
                self.running -= 1

    def _answer(self, prompt: int, generated: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": "so " * generated}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": self.arguments.served_model_name,
            "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
            "usage": _usage(prompt, generated),
        }

    async def _stream(self, request: web.Request, prompt: int, wanted: int) -> web.StreamResponse:
        """Usage on every chunk and on one of its own; an end of the engine is told, then [DONE]."""
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await answer.prepare(request)
        head = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": self.arguments.served_model_name,
        }
        try:
            for count in range(1, wanted + 1):
                await self.token()
                end = "length" if count == wanted else None
                choice = {"index": 0, "delta": {"content": "so "}, "finish_reason": end}
                await _frame(answer, {**head, "choices": [choice], "usage": _usage(prompt, count)})
            await _frame(answer, {**head, "choices": [], "usage": _usage(prompt, wanted)})
        except EngineDead:
            await _frame(answer, {"error": {"message": "EngineCore died", "code": 500}})
        await answer.write(b"data: [DONE]\n\n")
        return answer


class EngineDead(Exception):
    """The process behind the server is gone."""


def _usage(prompt: int, generated: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
    }


async def _frame(answer: web.StreamResponse, content: object) -> None:
    await answer.write(b"data: " + json.dumps(content).encode() + b"\n\n")


def _middleware(path: str) -> Any:
    """The ASGI class a real server would put before its routes, asked for each request."""
    module, _, name = path.rpartition(".")
    guard = getattr(importlib.import_module(module), name)

    @web.middleware
    async def ask(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        passed, sent = [], []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            passed.append(scope)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "path": request.path,
            "headers": [(name.lower(), value) for name, value in request.raw_headers],
        }
        await guard(application)(scope, None, send)
        if passed:
            return await handler(request)
        return web.Response(status=sent[0]["status"], body=sent[1]["body"])

    return ask


def _application(server: Server, middleware: list[str]) -> web.Application:
    app = web.Application(middlewares=[_middleware(path) for path in middleware])
    app.router.add_get("/health", server.health)
    app.router.add_get("/metrics", server.metrics)
    app.router.add_get("/load", server.load)
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_post("/collective_rpc", server.load)
    if os.environ.get("VLLM_SERVER_DEV_MODE") == "1":
        app.router.add_post("/sleep", server.sleep)
        app.router.add_post("/wake_up", server.wake)
    return app


async def _serve(server: Server) -> None:
    arguments = server.arguments
    runner = web.AppRunner(
        _application(server, arguments.middleware),
        handler_cancellation=True,  # a client that goes ends its request
        shutdown_timeout=arguments.shutdown_timeout,
    )
    await runner.setup()
    await web.TCPSite(runner, arguments.host, arguments.port).start()
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    await asked.wait()
    async with asyncio.timeout(arguments.shutdown_timeout + 5):
        await runner.cleanup()


def main(argv: list[str]) -> int:
    if argv == ["--version"]:
        sys.stdout.write(f"{VERSION}\n")
        return 0
    parser = argparse.ArgumentParser(prog="vllm")
    parser.add_argument("serve")
    parser.add_argument("model")
    parser.add_argument("--served-model-name")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int)
    parser.add_argument("--middleware", action="append", default=[])
    parser.add_argument("--shutdown-timeout", type=float, default=0.0)
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--max-num-seqs", type=int)
    parser.add_argument("--fake-control")
    arguments, _ = parser.parse_known_args(argv)
    server = Server(arguments)
    server.start()
    try:
        asyncio.run(_serve(server))
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
