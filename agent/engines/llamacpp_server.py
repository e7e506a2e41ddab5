"""The llama.cpp engine as a process: xllamacpp's own HTTP server, started from a command line.

Standard output carries one line of JSON when the model is loaded and the server listens:
`{"event": "listening", "host": "127.0.0.1", "port": 40123, "pid": 77, "caveat": ""}`. What
llama.cpp itself prints until then goes to standard error, and nothing of what it prints after: it
quotes requests. SIGTERM or SIGINT ends the process; streams that run are cut, so whoever stops it
drains first. The API key comes by the environment: a command line can be read by every account of
the machine.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from agent.engines.variables import API_KEY_VARIABLE

# Exit codes, so that the agent tells "cannot ever work" from "died".
EXIT_NOT_LOADED = 3  # the model does not load
EXIT_NOT_INSTALLED = 4  # xllamacpp is not there

# Only errors, while the model is loaded.
_VERBOSITY = 1
# Each kept-alive connection holds one of the server's threads, also while it is idle.
_HTTP_THREADS_SPARE = 64
_EMBEDDING_TOKENS_MAX = 8192


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m agent.engines.llamacpp_server",
        description="Serve one GGUF model over llama.cpp's HTTP API.",
        epilog=f"The API key is read from {API_KEY_VARIABLE}; without it the server asks for none.",
    )
    parser.add_argument("--model", required=True, metavar="FILE", help="a GGUF file")
    parser.add_argument(
        "--alias", required=True, metavar="NAME", help="the model's name in answers"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port (default)")
    parser.add_argument("--parallel", type=int, default=4, help="requests worked on at once")
    parser.add_argument("--context", type=int, default=4096, help="tokens of one request")
    parser.add_argument("--threads", type=int, default=1, help="compute threads")
    parser.add_argument(
        "--gpu-layers", type=int, default=0, help="layers of the model on GPUs; -1: all"
    )
    parser.add_argument("--embedding", action="store_true", help="serve vectors, not text")
    return parser.parse_args(argv)


def _listen(arguments: argparse.Namespace, api_key: str | None) -> object:
    """Load the model and listen. Blocks for as long as loading takes; the result keeps it alive."""
    import xllamacpp  # noqa: PLC0415 - optional: its absence is reported, not a traceback

    params = xllamacpp.CommonParams()
    params.model.path = arguments.model
    params.model_alias = {arguments.alias}
    params.hostnames = [arguments.host]
    params.port = arguments.port
    params.n_parallel = arguments.parallel
    params.n_ctx = arguments.context * arguments.parallel  # the server divides it by its slots
    params.cont_batching = True
    params.fit_params = False  # what was asked for, or an error; never silently less
    params.cpuparams.n_threads = arguments.threads
    params.cpuparams_batch.n_threads = arguments.threads
    params.n_gpu_layers = arguments.gpu_layers
    params.n_threads_http = arguments.parallel + _HTTP_THREADS_SPARE
    params.embedding = arguments.embedding
    if arguments.embedding:
        # A text is embedded in one piece: the physical batch must hold it whole.
        params.n_batch = params.n_ubatch = min(_EMBEDDING_TOKENS_MAX, arguments.context)
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.endpoint_props = False  # changing settings over HTTP
    params.cache_ram_mib = 0  # finished prompts are not kept in memory beside the slots
    params.cache_idle_slots = False
    params.ui = False
    params.offline = True
    params.verbosity = _VERBOSITY
    if api_key:
        params.api_keys = [api_key]
    server: object = xllamacpp.Server(params)
    return server


def _caveat(arguments: argparse.Namespace) -> str:
    """What whoever gave it GPUs must know; "": nothing."""
    import xllamacpp  # noqa: PLC0415 - it was loaded above

    kinds = {device["type"].name for device in xllamacpp.get_device_info()}
    if not arguments.gpu_layers or any("GPU" in kind for kind in kinds):
        return ""
    return (
        "It has GPUs and runs on the processor: the llama.cpp inside the agent was built without"
        " them. Install a llama-server built for these GPUs on the node, or give it no GPUs."
    )


def main(argv: Sequence[str]) -> int:
    arguments = _arguments(argv)
    api_key = os.environ.pop(API_KEY_VARIABLE, None)
    # The first line of our own goes to the real standard output; llama.cpp's go with its errors.
    ours = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # No handlers: Python runs them only between two steps of the main thread, which loading a model
    # and waiting for nothing do not offer. There is nothing to save, so the kernel may end us.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    try:
        server = _listen(arguments, api_key)
    except ImportError as error:
        sys.stderr.write(f"xllamacpp is not installed: {error}\n")
        return EXIT_NOT_INSTALLED
    except RuntimeError as error:
        sys.stderr.write(f"llama.cpp did not load {arguments.model}: {error}\n")
        return EXIT_NOT_LOADED
    # From here on llama.cpp sees requests, and its errors quote them (grammars, schemas, the prompt
    # they begin with): nothing more is written. How the process ends still tells its exit status.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    address = urlsplit(server.listening_address)  # type: ignore[attr-defined]  # xllamacpp has no types
    ready = {
        "event": "listening",
        "host": address.hostname,
        "port": address.port,
        "pid": os.getpid(),
        "caveat": _caveat(arguments),
    }
    with contextlib.suppress(OSError):  # whoever started it may be gone, and it serves on
        ours.write(json.dumps(ready) + "\n")
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
