"""Files for desktop clients and the registry of MCP servers: an MCPB bundle with the archive, and server.json."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from bundle.documents import version
from bundle.members import BuildError, archive_bytes, stored, text
from bundle.wheels import ROOT

NAME = "sikkerkey-mcp"
# The registry accepts a name only from the owner of its domain; this one is the vendor's.
REGISTRY_NAME = "com.sikkerkey/mcp"
DESCRIPTION = "Lets an AI assistant manage a SikkerKey secrets vault and never read a secret in it."
WEBSITE = "https://sikkerkey.com"
MANIFEST_VERSION = "0.3"
# What the client asks its user: the variable of the server that the answer sets, and how the client describes it. Each
# has a default, because clients otherwise pass the placeholder on as it is.
# fmt: off
USER_CONFIG: dict[str, tuple[str, dict[str, Any]]] = {
    "agent": ("SIKKERKEY_AGENT_ID", {
        "type": "string", "title": "Agent", "default": "",
        "description": "The agent's id, if several are installed on this computer (see `sikkerkey-mcp whoami`)."}),
    "read_only": ("SIKKERKEY_READ_ONLY", {
        "type": "boolean", "title": "Read only", "default": False,
        "description": "Offer only actions that change nothing and create no credential."}),
    "split_reads": ("SIKKERKEY_SPLIT_READS", {
        "type": "boolean", "title": "Separate tools for reads", "default": False,
        "description": "Offer reads as tools of their own, so that you can allow them without allowing changes."}),
    "tools": ("SIKKERKEY_TOOLS", {
        "type": "string", "title": "Only these tools", "default": "all",
        "description": "Offer only these: TOOL or TOOL.ACTION, separated by commas. `all`: no restriction."}),
    "exclude": ("SIKKERKEY_EXCLUDE", {
        "type": "string", "title": "Not these tools", "default": "none",
        "description": "Do not offer these: TOOL or TOOL.ACTION, separated by commas. `none`: no restriction."}),
    "ca_bundle": ("SIKKERKEY_CA_BUNDLE", {
        "type": "file", "title": "Certificate authorities", "default": "",
        "description": "A PEM file with certificate authorities to trust beside the usual ones."}),
    "proxy": ("HTTPS_PROXY", {
        "type": "string", "title": "Proxy", "default": "", "sensitive": True,
        "description": "http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, if the vault is reached through a proxy."}),
}
# fmt: on
REGISTRY_SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"


def manifest(tools: list[dict[str, str]]) -> dict[str, Any]:
    """manifest.json of the bundle. It starts Python with `-I`, as every configuration that `config` prints."""
    entry = "server/sikkerkey-mcp.pyz"
    arguments = ["-I", "${__dirname}/" + entry, "serve"]
    return {
        "manifest_version": MANIFEST_VERSION,
        "name": NAME,
        "display_name": "SikkerKey",
        "version": version(ROOT),
        "description": DESCRIPTION,
        "long_description": (
            "One Python archive without dependencies. Before the first use, register this computer as an agent: "
            "`python3 sikkerkey-mcp.pyz install -` with a one-time token from the vault's dashboard."
        ),
        "author": {"name": "sikkerkey-mcp contributors"},
        "homepage": WEBSITE,
        "license": "MIT",
        "keywords": ["secrets", "vault", "sikkerkey"],
        "server": {
            "type": "python",
            "entry_point": entry,
            "mcp_config": {
                "command": "python3",
                "args": arguments,
                "env": {variable: f"${{user_config.{name}}}" for name, (variable, _) in USER_CONFIG.items()},
                # `python` may open the Microsoft Store instead; with -3, `py` ignores the archive's first line.
                "platform_overrides": {"win32": {"command": "py", "args": ["-3", *arguments]}},
            },
        },
        "user_config": {name: described for name, (_, described) in USER_CONFIG.items()},
        "tools": tools,
        "compatibility": {"platforms": ["darwin", "linux", "win32"], "runtimes": {"python": ">=3.9.2"}},
    }


def bundle(archive: Path, tools: list[dict[str, str]]) -> bytes:
    """The bundle, a zip archive: the same bytes for the same archive."""
    listed = json.dumps(manifest(tools), indent=2).encode() + b"\n"
    members = [
        stored("manifest.json", listed),
        text("LICENSE", (ROOT / "LICENSE").read_bytes()),
        stored("server/sikkerkey-mcp.pyz", archive.read_bytes()),
    ]
    return archive_bytes(members)


def server_json(bundled: bytes, release: str, name: str = REGISTRY_NAME) -> bytes:
    """server.json; it names a download only if `release`, the URL of a release's files, is given."""
    described: dict[str, Any] = {
        "$schema": REGISTRY_SCHEMA,
        "name": name,
        "title": "SikkerKey",
        "description": DESCRIPTION,
        "version": version(ROOT),
        "websiteUrl": WEBSITE,
    }
    if release:
        described["packages"] = [
            {
                "registryType": "mcpb",
                "identifier": f"{release.rstrip('/')}/{NAME}.mcpb",
                "fileSha256": hashlib.sha256(bundled).hexdigest(),
                "transport": {"type": "stdio"},
            }
        ]
    if found := complaints(described):
        raise BuildError("server.json: " + "; ".join(found))
    return json.dumps(described, indent=2).encode() + b"\n"


def complaints(described: dict[str, Any]) -> list[str]:
    """Violations of the registry's published rules for the fields that are used here."""
    found = []
    if not re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", described["name"]) or len(described["name"]) > 200:
        found.append("name must be a reversed domain, a slash and a name")
    if not 1 <= len(described["description"]) <= 100:
        found.append("description must have 1 to 100 characters")
    if not 1 <= len(described["title"]) <= 100:
        found.append("title must have 1 to 100 characters")
    if re.match(r"[~^<>=*]|latest$", described["version"]) or len(described["version"]) > 255:
        found.append("version must be one version, no range")
    for package in described.get("packages", []):
        if not re.fullmatch(r"https://[^\s?#]+\.mcpb", package["identifier"]):
            found.append("a package must be an https URL that ends in .mcpb")
        if not re.fullmatch(r"[a-f0-9]{64}", package["fileSha256"]):
            found.append("fileSha256 must be 64 hexadecimal digits")
    return found
