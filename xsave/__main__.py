"""`python -m xsave`: the command line."""

import sys

from xsave.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
