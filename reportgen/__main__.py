"""``python -m reportgen``."""

import os
import sys

if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]  # own code is found where --pythonpath says, not wherever one happens to stand

from reportgen.cli import main

sys.exit(main())
