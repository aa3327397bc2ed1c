"""sikkerkey-mcp, except that it does not look up who listens on loopback.

That reads the tables of all sockets at each connection, which takes the kernel 20 to 90 ms after many other tests.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # started by path and isolated, so the repository is not on the import path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import sikkerkey_http
import sikkerkey_mcp

COMMAND = (sys.executable, "-I", str(Path(__file__).resolve()))

if __name__ == "__main__":
    vars(sikkerkey_http)["_SOCKET_TABLES"] = ()
    sys.exit(sikkerkey_mcp.main([]))
