"""A version that changes the databases so that the one before cannot go on with them.

None within a major does so by our own rule; the way back has to hold for one that must.
"""

import json
import os

import pytest

from tests.fakes.stand_in_bundle import make_bundle
from tests.integration.installer.conftest import Installation

# Adds a step to the ledger's schema that does not only expand it.
CONTRACTING = """\
import sys

if {"serve", "appliance.self_test"} & set(sys.orig_argv):
    import appliance.metering.schema as schema
    from appliance.storage.database import Migration

    schema.MIGRATIONS += (Migration("0.2-contracts", lambda _: None, expands=False),)
"""
AND_BROKEN = """\
import importlib.metadata

if "serve" in sys.orig_argv:
    importlib.metadata.version = lambda _: "9.9.9"
"""


@pytest.mark.timeout(60)
def test_going_back_by_itself_puts_the_backup_back(site: Installation) -> None:
    bundle = make_bundle(site.root.parent, "0.2.0", customize=CONTRACTING + AND_BROKEN)
    failed = site.installed("upgrade", str(bundle))
    assert failed.code == 1, failed
    assert "cannot go on with them" in failed.err
    assert "Version 9.9.9 answers. Version 0.1.0 serves again" in failed.err
    entry = site.history[-1]
    assert entry["outcome"] == "rolled back", entry
    assert "The databases are those of" in entry["back"]
    assert list((site.root / "var/lib/crosslogic").glob("before-restore-*"))
    assert site.cic("ledger", "verify")
    assert site.current == "0.1.0"


@pytest.mark.timeout(60)
@pytest.mark.skipif(
    os.environ.get("INSTALLER_KILLS") != "all", reason="INSTALLER_KILLS=all tries it too"
)
def test_a_rollback_is_refused_until_the_backup_is_asked_for(site: Installation) -> None:
    bundle = make_bundle(site.root.parent, "0.2.0", customize=CONTRACTING)
    assert site.installed("upgrade", str(bundle)).code == 0
    refused = site.installed("rollback", "--json")
    assert refused.code == 1, refused
    assert "written by a newer version" in refused.json["error"]["message"]
    assert "--with-backup" in refused.json["error"]["next_step"]
    assert site.current == "0.2.0"
    back = site.installed("rollback", "--with-backup", "--json")
    assert back.code == 0, back
    assert json.dumps(back.json["notes"]).count("The databases are those of") == 1
    assert site.current == "0.1.0"
    assert site.cic("ledger", "verify")
