"""The whole path of billed tokens, with a real model, the real SDK and two programs of ours."""

from pathlib import Path

import pytest

from tests.demo_billing.story import MODEL, MODELS, staged

pytestmark = [
    pytest.mark.skipif(
        not (MODELS / f"{MODEL}.gguf").is_file(),
        reason="`make models` has not brought the demo's models",
    ),
    pytest.mark.timeout(400),
]


def test_every_token_served_is_on_the_bill_by_wire_and_by_stick(tmp_path: Path) -> None:
    with staged(tmp_path, lambda _line: None) as story:
        outcome = story.tell()
    assert outcome.served > 0
    assert outcome.served == outcome.ledger == outcome.manifests
    for report, served in (
        (outcome.by_wire, outcome.served_by_wire),
        (outcome.by_stick, outcome.served),
    ):
        total = report["total"]
        assert total["signed"] == total["ledger"] == total["outbox"] == total["stripe"] == served
        assert total["drift"] == 0
