"""`make demo-billing`: from a completion to a reconciled bill, by wire and by stick."""

import sys
import tempfile
from pathlib import Path

from tests.demo_billing.story import MODEL, MODELS, staged


def main() -> int:
    if not (MODELS / f"{MODEL}.gguf").is_file():
        print("The demo's models are not there. Type: make demo-billing", file=sys.stderr)
        return 7
    with (
        tempfile.TemporaryDirectory(prefix="demo-billing-") as folder,
        staged(Path(folder), lambda line: print(line, flush=True)) as story,
    ):
        outcome = story.tell()
    if not outcome.served == outcome.ledger == outcome.manifests:
        print("The sums differ.", file=sys.stderr)
        return 6
    print("ends     every token served is on the bill or explained")
    return 0


if __name__ == "__main__":
    sys.exit(main())
