"""``python -m pyhrf_parallel``: the command ``pyhrf-parallel``, of this very interpreter."""

from __future__ import annotations

import sys

from pyhrf_parallel.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
