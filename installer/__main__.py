"""`python3 -I -m installer`: what install.sh of a bundle starts."""

import sys

from installer.main import main

if __name__ == "__main__":
    sys.exit(main())
