"""`--version`: the version, and with --verbose what a bug report should contain."""

from __future__ import annotations

import os
import sys

import sikkerkey_mcp


def print_version(*, verbose: bool) -> int:
    """Prints the version, with `verbose` also the runtime facts; returns the exit status."""
    print(f"sikkerkey-mcp {sikkerkey_mcp.VERSION}")
    if verbose:
        for key, value in runtime_facts().items():
            print(f"{key}: {sikkerkey_mcp.clean(value, 1_000)}")
    return 0


def runtime_facts() -> dict[str, str]:
    """The versions of Python and cryptography, and how the archive loaded them or where the module is."""
    python = f"{sys.implementation.name} {sys.version.split()[0]}, {sys.executable}"
    try:
        import cryptography.exceptions  # loads the native library, which may fail on this computer

        version = cryptography.__version__
    except ImportError as error:
        version = f"unusable: {error}"
    runtime = sys.modules.get("sikkerkey_launch")
    loaded: dict[str, str] = runtime.report() if runtime else {"module": os.path.abspath(sikkerkey_mcp.__file__)}
    return {**loaded, "cryptography": version, "python": python}
