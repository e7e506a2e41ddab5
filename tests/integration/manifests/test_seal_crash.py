"""kill -9 of a site that records, seals and rotates its key without pause."""

import random
import subprocess
import sys
import time
from pathlib import Path

from appliance.manifests import archive
from appliance.manifests.lines import Salts
from appliance.metering.reader import LedgerReader
from appliance.sync.head_note import read_note
from appliance.sync.identity import establish
from appliance.sync.manifest_verification import ManifestVerifier
from appliance.wire.home import find_home
from tests.fakes.sealed_site import SealedSite

KILLS = 12
START_S = 20.0


def killed_site(home: Path, kill: int, alive_s: float) -> list[str]:
    """Run until killed; the manifests that were told to be sealed, `epoch seq sha256` each."""
    arguments = [sys.executable, "-m", "tests.integration.manifests.busy_site", str(home)]
    with subprocess.Popen(
        [*arguments, str(kill * 1_000_000)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, "it ended by itself"
        time.sleep(alive_s)
        process.kill()
        return [first.strip(), *(line.strip() for line in process.stdout if line.endswith("\n"))]


def test_whenever_it_dies_each_record_is_in_one_manifest(tmp_path: Path) -> None:
    chance, told = random.Random(5), []
    folder = tmp_path / "home"
    home = find_home(str(folder))
    for kill in range(KILLS):
        told += killed_site(folder, kill, chance.uniform(0.0, 0.4))
        identity = establish(home.secrets, home.ledger_file)  # completes a rotation cut off
        reader = LedgerReader(home.ledger_file)
        note = read_note(home.manifest_note)
        verifier = ManifestVerifier(
            *(reader, Salts(identity.salts), lambda _head: True, note),
            rest=lambda _worked_s: None,
        )
        verdict = list(verifier.run())[-1]
        assert verdict.ok, (kill, verdict.problems)
    with SealedSite(home, identity, 0, 1).reading() as connection:
        rows = archive.manifest_rows(connection, limit=1_000_000)
        chain = archive.chain_state(connection)
    # What was told to be sealed is sealed, and was not sealed again otherwise.
    stored = {f"{row.epoch} {row.seq} {row.sha256}" for row in rows}
    assert set(told) <= stored
    numbers = [row.seq for row in rows]
    assert numbers == list(range(1, len(rows) + 1))
    covered = [seq for row in rows for seq in range(row.record_seq_lo, row.record_seq_hi + 1)]
    assert covered == list(range(1, chain.record_seq_hi + 1))
    assert len(told) >= KILLS
