"""`python -I -m installer.checks`: the preflight alone, with any Python of 3.11 or later."""

import sys

from installer.checks.main import preflight

if __name__ == "__main__":
    sys.exit(preflight(sys.argv[1:]))
