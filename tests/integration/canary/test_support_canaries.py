"""The support bundle of a real site: secrets planted where people leave them, and none comes along.

Half of them have the shape of no secret: they must not be collected at all, or be known by where
they stand (the word behind `--api-key`, the query of an address).
"""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.engine import FaultEngine, engine_in_thread
from tests.fakes.site import Site, SiteFailure, running_site
from tests.fakes.tiny_gguf import write_tiny_gguf

WORDS = [f"canary{number:02}zq{number * 7919 % 10007:05}" for number in range(50)]


@pytest.fixture
def engine() -> Iterator[FaultEngine]:
    with engine_in_thread(FaultEngine(api_key=WORDS[0])) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path, engine: FaultEngine) -> Iterator[Site]:
    settings = {
        "CIC_LOG_LEVEL": "debug",
        "HF_TOKEN": WORDS[1],
        "HTTPS_PROXY": f"http://ops:{WORDS[2]}@127.0.0.1:9",
        "AWS_SECRET_ACCESS_KEY": WORDS[3],
        "MY_OWN_THING": WORDS[4],
        "CIC_TIMEOUTS_FIRST_TOKEN_S": "0.5",
    }
    with running_site(tmp_path, settings=settings) as running:
        running.deployment("fault", engine.url, api_key=WORDS[0])
        yield running


def of_deployments(site: Site) -> None:
    """What engines are given: refused where it can be seen, or else known by where it stands."""
    model = write_tiny_gguf(site.folder / "m.gguf")
    site.admin("POST", "/v1/models", {"name": "m", "path": str(model)})
    refused: list[dict[str, object]] = [
        {"engine": "vllm", "model": "m", "settings": {"arguments": arguments}}
        for arguments in (
            ["--api-key", WORDS[5]],
            [f"--api-key={WORDS[6]}"],
            ["--hf-token", WORDS[7]],
            [f"--hf-token={WORDS[8]}"],
        )
    ]
    refused += [
        {"engine": "external", "url": url}
        for url in (
            f"http://ops:{WORDS[11]}@127.0.0.1:9",
            f"http://127.0.0.1:9/v1?api_key={WORDS[12]}",
            f"http://127.0.0.1:9/v1?sig={WORDS[13]}",
            f"http://127.0.0.1:9/{WORDS[14]}#token={WORDS[15]}",
        )
    ]
    for each in refused:
        with pytest.raises(SiteFailure, match="400"):
            site.admin("POST", "/v1/deployments", {"name": "refused", **each})
    taken = (
        ["--chat-template-kwargs", json.dumps({"webhook_token": WORDS[9]})],
        ["--override-kv", f"password={WORDS[10]}"],
    )
    for number, arguments in enumerate(taken):
        body = {"name": f"own-{number}", "engine": "llamacpp", "model": "m"}
        site.admin("POST", "/v1/deployments", {**body, "settings": {"arguments": arguments}})
    far = {"name": "far", "engine": "external", "url": "http://127.0.0.1:9", "api_key": WORDS[16]}
    site.admin("POST", "/v1/deployments", far)


def of_clients(site: Site) -> None:
    key = site.key()
    for number, fault in enumerate(("status:500", "bad_request", "reset_mid_stream", "bad_sse")):
        body = {
            "model": "fault",
            "messages": [{"role": "user", "content": f"my password is {WORDS[17 + number]}"}],
            "user": WORDS[21 + number],
            "say": WORDS[25 + number],
            "fault": fault,
            "stream": number % 2 == 1,
        }
        headers = {"X-Forwarded-For": WORDS[29], "Cookie": f"session={WORDS[30]}"}
        site.post("/chat/completions", body, key, headers)
    site.call("GET", f"/models?key={WORDS[31]}", None, key)
    site.call("GET", f"/{WORDS[32]}", None, key)
    site.post("/chat/completions", {"model": WORDS[33], "messages": []}, key)
    for scheme in ("Bearer", "Basic", "Token", ""):
        refused = {"Authorization": f"{scheme} {WORDS[34]}"}
        assert site.call("GET", "/models", None, None, refused)[0] == 401
    assert site.call("GET", "/models", None, None, {"X-Api-Key": WORDS[35]})[0] == 401


def of_people(site: Site, home: Path) -> None:
    """Their files, comments and wrong commands."""
    for number, name in enumerate(("notes.txt", "models/README", "secrets/old-key", "run/x.env")):
        path = home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"the password is {WORDS[36 + number]}\n")
    with (home / "config.toml").open("a") as settings:
        settings.write(f"\n# the old one was {WORDS[40]}\n")
    for wrong in (
        ["deployment", "create", "x", "--api-key", WORDS[41]],
        ["tenant", "show", f"sk-{WORDS[42]}abcdef"],
        ["sync", "connect", f"https://ops:{WORDS[43]}@127.0.0.1:9"],
        ["entitlement", "import", f"/tmp/{WORDS[44]}"],
        ["backup", "verify", f"/tmp/{WORDS[45]}"],
    ):
        site.run(*wrong, check=False)
    for number, path in enumerate(("/v1/tenants/", "/v1/nodes/", "/v1/deployments/", "/v1/keys/")):
        with pytest.raises(SiteFailure):
            site.ask("GET", path + WORDS[46 + number])


def text_of(bundle: Path) -> dict[str, str]:
    with tarfile.open(bundle) as archive:
        return {
            member.name: (archive.extractfile(member) or io.BytesIO()).read().decode()
            for member in archive
        }


def test_none_of_fifty_secrets_of_a_real_site_is_inside(site: Site, tmp_path: Path) -> None:
    of_deployments(site)
    of_clients(site)
    of_people(site, site.home)
    bundle = tmp_path / "case.tar.gz"
    made = site.cic("support", "create", "--to", str(bundle))
    assert made["left_out"] == []
    texts = text_of(bundle)
    assert '"own-1"' in texts["support/deployments.json"]
    assert "[redacted]" in texts["support/deployments.json"]
    found = {
        f"{word} (number {number}) in {name}"
        for number, word in enumerate(WORDS)
        for name, text in texts.items()
        if word in text
    }
    assert found == set()
