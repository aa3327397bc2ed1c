"""`python -m vault`: the owner's command line."""

from __future__ import annotations

import sys

from vault.owner.cli import main

if __name__ == "__main__":
    sys.exit(main())
