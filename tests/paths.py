"""Where the optional data folder is: `XSAVE_DATA`, or `../shared/data` seen from the repository's root."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("XSAVE_DATA") or ROOT.parent / "shared" / "data")
