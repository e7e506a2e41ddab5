"""The preflight alone: `python3 -I FOLDER/installer/checks`, or `-m installer.checks`.

Any Python of 3.11 or later will do, and nothing has to be installed.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:
        # Started by its folder's path, which Python put first: the packages lie two above it.
        sys.path[0] = str(Path(__file__).resolve().parents[2])
    from installer.checks.main import preflight

    sys.exit(preflight(sys.argv[1:]))
