"""A served site under a partner's name, and one whose branding is not right."""

import json
from pathlib import Path

from appliance.branding import Brand, sign_brand
from appliance.security.signing import SigningKey
from tests.fakes.engine import engine_in_thread
from tests.fakes.site import running_site

BRAND = Brand(product="Acme AI", owner="acme", support="help@acme.example")


def test_a_partners_name_is_told_by_the_endpoint_and_the_status(tmp_path: Path) -> None:
    key = SigningKey(bytes(range(32)))
    file, pem = tmp_path / "a.branding", tmp_path / "a.pem"
    file.write_bytes(sign_brand(BRAND, key))
    pem.write_text(key.public.pem)
    settings = {"CIC_BRANDING_FILE": str(file), "CIC_BRANDING_PUBLISHER": str(pem)}
    with engine_in_thread() as engine, running_site(tmp_path, settings=settings) as site:
        site.deployment("river", engine.url)
        _, listed = site.get("/models", site.key())
        assert [model["owned_by"] for model in json.loads(listed)["data"]] == ["acme"]
        assert site.status()["product"] == "Acme AI"
        assert site.status()["support"] == "help@acme.example"
        file.write_bytes(file.read_bytes()[:-2])
        site.restart()
        _, listed = site.get("/models", site.key())
        assert [model["owned_by"] for model in json.loads(listed)["data"]] == ["crosslogic"]
        (check,) = [
            json.loads(one) for one in site.ask("GET", "/v1/checks?only=branding").splitlines()
        ]
        assert check["outcome"] == "warning"
