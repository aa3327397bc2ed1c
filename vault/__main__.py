"""`python -m vault`: the owner's command line."""

from __future__ import annotations

import sys

try:
    from vault.owner.cli import main
except KeyboardInterrupt:  # without a traceback, as later
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
