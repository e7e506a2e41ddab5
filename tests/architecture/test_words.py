"""Nothing in the project names the machine it was written on, or where packages come from."""

import re

from tests.architecture.tree import ROOT, tracked_files

# Put together here, so that this page is not its own first finding.
FORBIDDEN = (
    r"(?<![\w.])/(?:work|root|farm)/",
    r"(?<![\w.])/home/\w+/",
    "py" + r"pi\.org",
    "python" + "hosted",
    "registry" + r"\.npm" + "js",
    "deb" + r"\.debian" + r"\.org",
    "hugging" + r"face\.co\b",
)
NOT_TEXT = {".png", ".svg", ".gguf", ".db"}


def test_no_page_names_a_machine_or_a_package_index() -> None:
    pattern = re.compile("|".join(FORBIDDEN))
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for file in tracked_files()
        if file.suffix not in NOT_TEXT
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_no_file_is_larger_than_a_page_of_source_needs() -> None:
    large = [
        f"{file.relative_to(ROOT)}: {file.stat().st_size} bytes"
        for file in tracked_files()
        if file.stat().st_size > 512 * 1024
    ]
    assert large == []
