"""`cic chat` with a real engine: the answer, its count, and what is left of it."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.fakes.site import Site, running_site
from tests.fakes.tiny_gguf import write_tiny_gguf

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with running_site(folder, with_agent=True) as site:
        model = write_tiny_gguf(folder / "small.gguf")
        made = ("--name", "small", "--engine", "llamacpp", "--model", str(model))
        site.cic("deployment", "create", *made, "--wait")
        yield site


def test_a_question_is_answered_counted_once_and_kept_nowhere(site: Site) -> None:
    secret = "the password is river-otter-42"
    answer = site.cic("chat", "small", secret, "--max-tokens", "8")
    assert answer["output_tokens"] == 8
    assert answer["finish_reason"] == "length"
    assert answer["first_token_ms"] >= 0
    (row,) = [row for row in site.ledger() if row["tenant"] == "site-console"]
    assert (row["input_tokens"], row["output_tokens"]) == (answer["input_tokens"], 8)
    assert row["key"].startswith(f"{os.getuid()}-")
    assert site.cic("key", "list", "--tenant", "site-console") == [], "the pass has ended"
    for path in site.home.rglob("*"):
        if path.is_file() and path.suffix != ".gguf":
            assert b"river-otter" not in path.read_bytes(), path


def test_text_comes_to_the_output_and_figures_beside_it(site: Site) -> None:
    done = site.run("chat", "small", "river", "--max-tokens", "4")
    assert done.stdout.strip()
    assert "4 out" in done.stderr
    assert "cut off by --max-tokens" in done.stderr


def test_a_question_from_standard_input(site: Site) -> None:
    command = [*site.command, "--json", "chat", "small", "--max-tokens", "4"]
    done = subprocess.run(
        command, input="of rivers", capture_output=True, text=True, timeout=60, check=True,
        env=site.environ,
    )  # fmt: skip
    assert json.loads(done.stdout)["output_tokens"] == 4


def test_who_asks_nothing_or_for_nothing_there_is_told(site: Site) -> None:
    assert site.run("chat", "none", "river", check=False).returncode == 3
    assert site.run("chat", "small", " ", check=False).returncode != 0
    site.cic("tenant", "suspend", "site-console")
    try:
        refused = site.run("chat", "small", "river", check=False)
        assert refused.returncode == 1
        assert "suspended" in refused.stderr
    finally:
        site.cic("tenant", "resume", "site-console")


def test_who_interrupts_frees_the_slot_and_ends_the_pass(site: Site) -> None:
    command = [*site.command, "chat", "small", "river", "--max-tokens", "1000000"]
    (replica,) = site.admin("GET", "/v1/deployments/small")["replicas"]
    os.kill(replica["pid"], signal.SIGSTOP)  # its answer is under way for as long as we want
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=site.environ
        )
        site.until(lambda: site.status()["requests_running"] == 1, DEADLINE_S, "the question")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE_S)
    finally:
        os.kill(replica["pid"], signal.SIGCONT)
    assert process.returncode == 130
    site.wait_idle()
    assert site.cic("key", "list", "--tenant", "site-console") == []
