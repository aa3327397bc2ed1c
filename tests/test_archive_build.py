"""The build: reproducible bytes, the expected members, every licence, correct checksums."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_identity
import sikkerkey_mcp
import sikkerkey_tls
from bundle import documents, mcpb, wheels
from bundle.archives import PROGRAMS
from bundle.members import BuildError, stored
from tests.support.archive_runs import OTHER_PYTHONS, PROGRAM, ROOT, THIS_PLATFORM, build, find_python, posix_only
from tests.support.harness import ARCHIVE

DIST = ARCHIVE.parent
VAULT_ARCHIVE = DIST / "sikkerkey-vault.pyz"


def described(path: Path) -> dict[str, Any]:
    """What an archive says about itself: archive.json, and the name and digest in __main__.py."""
    with zipfile.ZipFile(path) as archive:
        description: dict[str, Any] = json.loads(archive.read("archive.json"))
        main = archive.read("__main__.py").decode()
    (named,) = re.findall(r"^PROGRAM, BUILD = (.+)$", main, re.MULTILINE)
    program, build_digest = ast.literal_eval(named)
    return {"program": program, "build": build_digest, **description}


def members(path: Path) -> list[str]:
    """The names in an archive, whose rows say nothing about the machine that built it."""
    with zipfile.ZipFile(path) as archive:
        rows = archive.infolist()
    assert {(row.date_time, row.create_system) for row in rows} == {((1980, 1, 1, 0, 0, 0), 3)}
    assert {row.external_attr for row in rows} == {0o100644 << 16}
    return [row.filename for row in rows]


# -- the same bytes --------------------------------------------------------------------------------------------------


def test_every_build_gives_the_same_bytes(tmp_path: Path) -> None:
    """`make verify` does more."""
    far = {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "1", "LC_ALL": "C"}
    again = build(tmp_path / "again.pyz", umask=0o077, cwd=tmp_path, env=far)
    assert hashlib.sha256(again).hexdigest() == hashlib.sha256(ARCHIVE.read_bytes()).hexdigest(), "run `make zipapp`"


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slim") / "slim.pyz"
    build(path, "--platform", THIS_PLATFORM, umask=0o077)
    return path


@pytest.mark.parametrize("name", OTHER_PYTHONS)
def test_every_python_builds_the_same_bytes(name: str, slim: Path, tmp_path: Path) -> None:
    other = build(tmp_path / "slim.pyz", "--platform", THIS_PLATFORM, python=find_python(name))
    assert hashlib.sha256(other).hexdigest() == hashlib.sha256(slim.read_bytes()).hexdigest()


@posix_only
def test_archives_are_executable_with_any_umask(slim: Path) -> None:
    data = slim.read_bytes()
    assert data.startswith(b"#!/usr/bin/env python3\n")
    assert slim.stat().st_mode & 0o777 == 0o755
    assert len(data) < 6_000_000


# -- what is in them -------------------------------------------------------------------------------------------------


RUNTIME = {"sikkerkey_refusal.py", "__main__.py", "sikkerkey_runtime.py", "archive.json"}


def contents(path: Path) -> tuple[set[str], set[str]]:
    """Top-level members other than documents, and what is in python/."""
    names = [name for name in members(path) if not name.startswith(f"{path.stem}")]
    return {name.partition("/")[0] for name in names}, {name.split("/")[1] for name in names if name[:7] == "python/"}


def test_client_holds_nothing_of_the_vault() -> None:
    top, python = contents(ARCHIVE)
    modules = {
        path.name for path in ROOT.glob("sikkerkey_*") if path.suffix == ".py" or (path / "__main__.py").exists()
    }
    assert top == {*RUNTIME, "python", "cryptography-48.0.1", "cryptography-50.0.2", "native"}
    assert python == {*modules, "_cffi_backend.py", "sikkerkey_launch.py", "sikkerkey_unpack.py", "certifi"}


def test_vault_holds_nothing_of_the_client() -> None:
    top, python = contents(VAULT_ARCHIVE)
    assert top == {*RUNTIME, "python", "cryptography-48.0.1", "cryptography-50.0.2", "native"}
    assert {name for name in python if name.startswith("sikkerkey")} == {"sikkerkey_launch.py", "sikkerkey_unpack.py"}
    assert sorted(described(VAULT_ARCHIVE)["platforms"]) == sorted(PROGRAMS["vault"].platforms)


@pytest.mark.parametrize("path", [ARCHIVE, VAULT_ARCHIVE], ids=["mcp", "vault"])
def test_description_is_of_the_members_and_of_the_wheels_in_the_lock_file(path: Path) -> None:
    description = described(path)
    with zipfile.ZipFile(path) as archive:
        everything = {name: archive.read(name) for name in archive.namelist()}  # compares the checksums, too
    contents = {name: data for name, data in everything.items() if "/" in name}
    listed = {f"{tree}/{name}": row for tree, files in description["files"].items() for name, row in files.items()}
    assert listed == {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in contents.items()}
    for row in wheels.locked():
        if row.platform not in description["platforms"]:
            continue
        native = f"native/{row.platform}"
        assert description["platforms"][row.platform] == ["python", f"cryptography-{row.version}", native]
        with zipfile.ZipFile(row.path) as wheel:
            natives = {name: wheel.read(name) for name in wheel.namelist() if ".so" in name or name.endswith(".pyd")}
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in natives.items()}
        assert digests == {name: digest for name, (_, digest) in description["files"][native].items()}
        assert next(iter(description["files"][native])).startswith("cryptography/hazmat/bindings/_rust.")


def test_lock_file_has_one_line_for_each_platform_and_no_addresses() -> None:
    rows = wheels.locked()
    for platform in wheels.PLATFORMS:
        assert [row.project for row in rows if row.platform == platform] == ["cryptography"]
    assert "://" not in wheels.LOCK.read_text(encoding="utf-8")
    assert rows == sorted(rows, key=lambda row: (row.platform, row.filename))


# -- documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [ARCHIVE, VAULT_ARCHIVE], ids=["mcp", "vault"])
def test_bill_of_materials_lists_every_wheel(path: Path) -> None:
    listed = json.loads(path.with_suffix(".cdx.json").read_bytes())
    program = PROGRAMS["mcp" if path == ARCHIVE else "vault"]
    mine = [row for row in wheels.locked() if row.project in program.projects]
    mine = [row for row in mine if row.platform in ("any", *program.platforms)]
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6")
    assert not {"serialNumber", "timestamp"} & ({*listed} | {*listed["metadata"]})
    hashes = {part["hashes"][0]["content"] for part in listed["components"]}
    assert hashes == {row.digest for row in mine}
    assert all(part["licenses"][0]["expression"] for part in listed["components"])
    references = [part["bom-ref"] for part in listed["components"]]
    assert listed["dependencies"] == [{"ref": listed["metadata"]["component"]["bom-ref"], "dependsOn": references}]
    for part in listed["components"]:
        names = [inner["name"] for inner in part.get("components", [])]
        assert part["name"] != "cryptography" or {"openssl", "asn1"} <= set(names)
        assert ("libgcc" in names) == ("musllinux" in part["bom-ref"])


@pytest.mark.parametrize("path", [ARCHIVE, VAULT_ARCHIVE], ids=["mcp", "vault"])
def test_documents_beside_the_archive_are_those_in_it(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.read(f"{path.stem}.cdx.json") == path.with_suffix(".cdx.json").read_bytes()
        licenses = archive.read(f"{path.stem}-licenses.txt")
    assert licenses == path.with_name(f"{path.stem}-licenses.txt").read_bytes()
    for words in (b"MIT License", b"Apache License", b"GNU GENERAL PUBLIC LICENSE", b"GCC RUNTIME LIBRARY EXCEPTION"):
        assert words in licenses


def test_checksums_are_those_of_the_files() -> None:
    sums = (DIST / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in sums)}
    for name in (ARCHIVE.stem, VAULT_ARCHIVE.stem):
        assert {f"{name}.pyz", f"{name}.cdx.json", f"{name}-licenses.txt"} <= {*listed}
    for name, digest in listed.items():
        assert (name, hashlib.sha256((DIST / name).read_bytes()).hexdigest()) == (name, digest)


# -- bundle and registry ---------------------------------------------------------------------------------------------


def test_desktop_bundle_starts_its_archive(tmp_path: Path) -> None:
    archive = tmp_path / "small.pyz"
    archive.write_bytes(b"archive")
    tools = [{"name": tool.name, "description": tool.text} for tool in sikkerkey_mcp.TOOLS]
    bundled = mcpb.bundle(archive, tools)
    assert bundled == mcpb.bundle(archive, tools)
    with zipfile.ZipFile(io.BytesIO(bundled)) as file:
        manifest = json.loads(file.read("manifest.json"))
        assert file.read(manifest["server"]["entry_point"]) == b"archive"
    assert (manifest["version"], manifest["tools"]) == (sikkerkey_mcp.VERSION, tools)
    config = manifest["server"]["mcp_config"]
    arguments = ["-I", "${__dirname}/" + manifest["server"]["entry_point"], "serve"]
    assert (config["command"], config["args"]) == ("python3", arguments)
    assert config["platform_overrides"] == {"win32": {"command": "py", "args": ["-3", *arguments]}}


def test_desktop_bundle_asks_for_settings_whose_defaults_change_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = mcpb.manifest([])
    asked = manifest["user_config"]
    for variable, text in manifest["server"]["mcp_config"]["env"].items():
        (name,) = re.findall(r"^\$\{user_config\.(\w+)\}$", text)
        default = asked[name]["default"]
        monkeypatch.setenv(variable, default if isinstance(default, str) else str(default).lower())
    assert len(manifest["server"]["mcp_config"]["env"]) == len(asked) > 5
    assert sikkerkey_mcp.read_restrictions({}) == []
    assert sikkerkey_identity.choose_agent() is None
    assert sikkerkey_tls.tls_context().get_ca_certs()
    monkeypatch.setenv("SIKKERKEY_READ_ONLY", "true")
    assert [restriction.source for restriction in sikkerkey_mcp.read_restrictions({})] == ["SIKKERKEY_READ_ONLY"]


def test_registry_entry_keeps_the_registry_rules() -> None:
    entry = json.loads(mcpb.server_json(b"bundle", "https://example.com/v1"))
    (package,) = entry["packages"]
    assert package["identifier"] == "https://example.com/v1/sikkerkey-mcp.mcpb"
    assert package["fileSha256"] == hashlib.sha256(b"bundle").hexdigest()
    assert "packages" not in json.loads(mcpb.server_json(b"bundle", ""))
    assert json.loads(mcpb.server_json(b"bundle", "", "io.github.someone/mcp"))["name"] == "io.github.someone/mcp"
    with pytest.raises(BuildError, match="reversed domain"):
        mcpb.server_json(b"bundle", "", "no domain")
    for wrong in ("http://example.com", "https://example.com/a b"):
        with pytest.raises(BuildError, match="https URL"):
            mcpb.server_json(b"bundle", wrong)


# -- refusals --------------------------------------------------------------------------------------------------------


def test_missing_wheels_without_an_index_give_a_clear_error(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("build_zipapp.py", "LICENSE", "bundle", "requirements", "runtime"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
    command = [sys.executable, str(copy / "build_zipapp.py"), "--source", str(PROGRAM)]
    environment = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "HOME": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 1
    assert "pip cannot get certifi-" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_changed_wheel_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "WHEELS", tmp_path)
    row = wheels.locked()[0]
    assert not row.is_here()
    row.path.write_bytes(b"changed")
    assert not row.is_here()


def test_wheels_of_one_version_that_differ_are_refused() -> None:
    from bundle.archives import once

    assert [member.name for member in once([stored("b", b"1"), stored("a", b"1"), stored("b", b"1")])] == ["a", "b"]
    with pytest.raises(BuildError, match="b differs between wheels"):
        once([stored("b", b"1"), stored("b", b"2")])


def test_version_is_read_from_the_source() -> None:
    assert documents.version(ROOT) == sikkerkey_mcp.VERSION


# -- what it says about itself ---------------------------------------------------------------------------------------


def test_verbose_version_says_what_runs_and_how_it_was_loaded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    command = [sys.executable, "-I", "-S", str(ARCHIVE), "--version", "--verbose"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    facts = dict(line.split(": ", 1) for line in shown.splitlines()[1:])
    (unpacked,) = (home / ".cache" / "sikkerkey-mcp").iterdir()
    assert shown.splitlines()[0] == f"sikkerkey-mcp {sikkerkey_mcp.VERSION}"
    assert (facts["archive"], facts["build"]) == (str(ARCHIVE), described(ARCHIVE)["build"])
    assert facts["platform"] == THIS_PLATFORM
    assert unpacked in Path(facts["bytecode"]).parents
    assert unpacked in Path(facts["library"]).parents
    assert f"cryptography-{facts['cryptography']}" == described(ARCHIVE)["platforms"][THIS_PLATFORM][1]
    assert facts["python"].endswith(sys.executable)
