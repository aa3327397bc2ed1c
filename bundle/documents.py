"""The documents about an archive: licences, a CycloneDX bill of materials, checksums. None contains a date."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bundle.members import BuildError, Member, members_of, text, write
from bundle.wheels import ROOT, Wheel

PUBLISHED = ("sikkerkey-*", "server.json")
# For wheels whose metadata has no SPDX expression.
SPDX_OF_CLASSIFIER = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def version(source: Path) -> str:
    """The program's version, read without importing it."""
    found = re.search(r'^VERSION = "([^"]+)"', (source / "sikkerkey_mcp.py").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise BuildError("sikkerkey_mcp.py has no VERSION")
    return found[1]


# -- licences --------------------------------------------------------------------------------------------------------


def licenses(wheels: Sequence[Wheel]) -> list[Member]:
    """This project's licence and those of everything in the wheels."""
    found = [text("licenses/sikkerkey-mcp/LICENSE", (ROOT / "LICENSE").read_bytes())]
    for wheel in wheels:
        members = list(members_of(wheel.path))
        theirs = [licence for member in members if (licence := as_licence(wheel, member))]
        if not theirs:
            raise BuildError(f"{wheel.filename} holds no licence")
        found += theirs
        if any("libgcc_s" in member.name for member in members):
            found += libgcc_licenses()
    return found


def as_licence(wheel: Wheel, member: Member) -> Member | None:
    """The member under its name in the archive if it is a licence; older wheels have it directly in their dist-info."""
    place, _, rest = member.name.partition(".dist-info/")
    name = rest[len("licenses/") :] if rest.startswith("licenses/") else rest
    is_one = rest.startswith("licenses/") or re.match(r"(LICEN[CS]E|COPYING|NOTICE)", rest)
    if not place or not name or not is_one:
        return None
    return member._replace(name=f"licenses/{wheel.project}-{wheel.version}/{name}")


def libgcc_licenses() -> Iterator[Member]:
    """Wheels for musl contain GCC's run-time library without its licence."""
    for path in (ROOT / "bundle" / "licenses" / "libgcc").iterdir():
        yield text(f"licenses/libgcc/{path.name}", path.read_bytes())


def licenses_text(members: list[Member]) -> bytes:
    """All licences in one file."""
    rule = "=" * 100
    parts = [f"{rule}\n{member.name[len('licenses/') :]}\n{rule}\n\n".encode() + member.content() for member in members]
    return b"\n\n".join(part.rstrip() for part in parts) + b"\n"


# -- bill of materials -----------------------------------------------------------------------------------------------


def sbom(name: str, program_version: str, wheels: Sequence[Wheel]) -> bytes:
    """CycloneDX 1.6: one component for each wheel, with the components that are compiled into it."""
    root = f"{name}@{program_version}"
    components = [component(wheel) for wheel in wheels]
    listed = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": name,
                "version": program_version,
                "licenses": [{"license": {"id": "MIT"}}],
            }
        },
        "components": components,
        "dependencies": [{"ref": root, "dependsOn": [part["bom-ref"] for part in components]}],
    }
    return json.dumps(listed, indent=1).encode() + b"\n"


def component(wheel: Wheel) -> dict[str, Any]:
    """One wheel."""
    purl = f"pkg:pypi/{wheel.project.replace('_', '-')}@{wheel.version}"
    members = {member.name: member for member in members_of(wheel.path)}
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"{purl}?file_name={wheel.filename}",
        "name": wheel.project.replace("_", "-"),
        "version": wheel.version,
        "hashes": [{"alg": "SHA-256", "content": wheel.digest}],
        "licenses": [{"expression": license_of(wheel, members)}],
        "purl": f"{purl}?file_name={wheel.filename}",
        "properties": [{"name": "sikkerkey:platform", "value": wheel.platform}],
    }
    if parts := list(compiled_in(made["bom-ref"], members)):
        made["components"] = parts
    return made


def license_of(wheel: Wheel, members: dict[str, Member]) -> str:
    """The licence as an SPDX expression."""
    (metadata,) = (member for name, member in members.items() if name.endswith(".dist-info/METADATA"))
    header = metadata.content().decode("utf-8").partition("\n\n")[0]
    if found := re.search(r"^License-Expression: (.+)$", header, re.MULTILINE):
        return found[1]
    if (found := re.search(r"^License: (.+)$", header, re.MULTILINE)) and found[1] in SPDX_OF_CLASSIFIER.values():
        return found[1]
    for classifier in re.findall(r"^Classifier: (License :: .+)$", header, re.MULTILINE):
        if classifier in SPDX_OF_CLASSIFIER:
            return SPDX_OF_CLASSIFIER[classifier]
    raise BuildError(f"{wheel.filename} has no licence that documents.py knows")


def compiled_in(owner: str, members: dict[str, Member]) -> Iterator[dict[str, Any]]:
    """The components in the wheel's own bills of materials: OpenSSL, Rust crates, GCC's run-time library."""
    for name in sorted(members):
        if ".dist-info/sboms/" not in name or not name.endswith(".json"):
            continue
        for part in json.loads(members[name].content()).get("components", []):
            if part["name"] == "cryptography":  # the wheel itself, in auditwheel's
                continue
            kept = {key: part[key] for key in ("type", "name", "version", "hashes", "licenses", "purl") if key in part}
            yield {**kept, "bom-ref": f"{owner}#{part['name']}@{part['version']}"}


# -- checksums -------------------------------------------------------------------------------------------------------


def published(directory: Path) -> list[Path]:
    """The files in a directory that a release publishes, without the checksums and their signature."""
    return sorted({path for pattern in PUBLISHED for path in directory.glob(pattern) if path.is_file()})


def write_sums(directory: Path) -> None:
    """Write SHA256SUMS of the published files, in the format of `sha256sum --check`."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in published(directory)]
    write(directory / "SHA256SUMS", "".join(lines).encode())
