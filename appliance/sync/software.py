"""Which software sealed: a digest that anybody can compute again from an installed copy.

It is what this prints in the folder that holds the package:
`find appliance -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum`.
"""

from hashlib import sha256
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parent.parent


def software_digest(package: Path = PACKAGE) -> str:
    """64 hex digits over the names and contents of the package's modules. Reads about 1 MB."""
    lines = [
        f"{sha256(file.read_bytes()).hexdigest()}  {file.relative_to(package.parent).as_posix()}\n"
        for file in package.rglob("*.py")
    ]
    lines.sort(key=lambda line: line[66:].encode())
    return sha256("".join(lines).encode()).hexdigest()
