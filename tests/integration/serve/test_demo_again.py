"""`cic demo` in a home it was run in before."""

from pathlib import Path

from rich.console import Console

from appliance.commands.client import AdminClient
from appliance.commands.demo import KEY, prepare
from appliance.wire import admin
from appliance.wire.home import find_home
from tests.fakes.site import running_site

RUNS = 4


def test_each_run_gets_a_secret_of_the_same_key(tmp_path: Path) -> None:
    with running_site(tmp_path) as site, AdminClient(find_home(str(site.home))) as client:
        secrets = [prepare(client, {}, Console(quiet=True)) for _ in range(RUNS)]
        assert len(set(secrets)) == RUNS
        assert [key.name for key in client.get("/v1/keys", list[admin.Key])] == [KEY]
