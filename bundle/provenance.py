"""Where a release comes from, as SLSA provenance: an in-toto statement about the published files, without a date."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bundle.members import BuildError
from bundle.wheels import LOCK, Wheel, locked

NAME = "sikkerkey-mcp.intoto.json"
BUILD_TYPE = "urn:sikkerkey-mcp:make-release:1"
# The builder of someone who does not name one.
UNNAMED_BUILDER = "urn:sikkerkey-mcp:unnamed-builder"


def source_commit(directory: Path) -> str:
    """The commit of a checkout without changes or new files. Raises BuildError."""
    commands = (["rev-parse", "--verify", "HEAD"], ["status", "--porcelain"])
    try:
        commit, changes = (
            subprocess.run(["git", *command], cwd=directory, capture_output=True, text=True, check=True).stdout
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        raise BuildError("the source commit is unknown: release from a git checkout") from None
    if changes:
        raise BuildError(f"the checkout differs from its commit; commit or remove these first:\n{changes.rstrip()}")
    return commit.strip()


def checked_builder(builder: str) -> str:
    """The builder's id, a public URI. Raises BuildError: a path or an address of one machine says nothing to others."""
    uri = builder or UNNAMED_BUILDER
    if not re.fullmatch(r"urn:[a-z0-9-]+:[\w.:/-]+|https://[a-z0-9-]+(\.[a-z0-9-]+)*\.[a-z]+(/[\w.@/+-]*)?", uri):
        raise BuildError(
            "BUILDER_ID is neither a urn: nor an https:// address with a public name, without user and port"
        )
    return uri


def statement(files: Sequence[Path], version: str, commit: str, builder: str) -> bytes:
    """An in-toto statement v1 with SLSA provenance v1 of the files."""
    materials = [
        {"name": "source", "digest": {"gitCommit": commit}},
        {"name": f"requirements/{LOCK.name}", "digest": {"sha256": sha256(LOCK)}},
        *(material(wheel) for wheel in locked()),
    ]
    made = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path.name, "digest": {"sha256": sha256(path)}} for path in sorted(files)],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"target": "release", "version": version},
                "internalParameters": {"python": platform.python_version()},
                "resolvedDependencies": materials,
            },
            "runDetails": {"builder": {"id": checked_builder(builder)}},
        },
    }
    return json.dumps(made, indent=1).encode() + b"\n"


def material(wheel: Wheel) -> dict[str, object]:
    """A line of the lock file as an in-toto resource descriptor."""
    project = wheel.project.replace("_", "-")
    uri = f"pkg:pypi/{project}@{wheel.version}?file_name={wheel.filename}"
    return {"name": wheel.filename, "uri": uri, "digest": {"sha256": wheel.digest}}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
