"""The signature and the provenance of a release, made with throwaway keys and verified as docs/platforms.md says."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bundle import provenance, signature
from bundle.members import BuildError
from bundle.wheels import locked
from tests.support.harness import ROOT
from tests.test_readme import commands
from tools import release

COMMIT = "5" * 40
needs_ssh_keygen = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="OpenSSH is not installed")


def key_of(directory: Path, kind: str = "ed25519") -> Path:
    """A new key without a passphrase, outside the checkout."""
    path = directory / f"key-{kind}"
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A directory with two files that a release publishes, and one that it does not."""
    directory = tmp_path / "dist"
    directory.mkdir()
    for name in ("sikkerkey-mcp.pyz", "server.json", "notes"):
        (directory / name).write_text(f"the content of {name}\n")
    return directory


def follow_the_page(directory: Path) -> list[int]:
    """The exit codes of the page's commands, run in a directory."""
    text = (ROOT / "docs" / "platforms.md").read_text(encoding="utf-8").partition("## Verify a release")[2]
    lines = commands(text)
    assert len(lines) == 2
    shells = [["sh", "-c", line] for line in lines]
    return [subprocess.run(shell, cwd=directory, capture_output=True, check=False).returncode for shell in shells]


@needs_ssh_keygen
def test_a_signed_release_verifies_as_the_page_says(dist: Path, tmp_path: Path) -> None:
    key = key_of(tmp_path)
    signer = release.describe_and_sign(dist, COMMIT, key, "")
    assert signer.split()[2:] == key.with_suffix(".pub").read_text().split()
    (dist / "allowed_signers").write_text(f"{signer}\n")
    listed = [line.split()[1] for line in (dist / "SHA256SUMS").read_text().splitlines()]
    assert listed == ["server.json", provenance.NAME, "sikkerkey-mcp.pyz"]
    assert follow_the_page(dist) == [0, 0]
    (dist / "sikkerkey-mcp.pyz").write_text("something else")
    assert follow_the_page(dist)[1] != 0
    with (dist / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  another\n")
    assert follow_the_page(dist)[0] != 0


@needs_ssh_keygen
def test_a_signature_of_another_key_does_not_verify(dist: Path, tmp_path: Path) -> None:
    signer = release.describe_and_sign(dist, COMMIT, key_of(tmp_path), "")
    other = tmp_path / "other"
    other.mkdir()
    release.describe_and_sign(dist, COMMIT, key_of(other), "")
    with pytest.raises(BuildError, match="not valid"):
        signature.verify(dist / "SHA256SUMS", signer)


@needs_ssh_keygen
def test_a_key_of_another_kind_signs_nothing(dist: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="ecdsa-sha2-nistp256, but releases are signed with Ed25519"):
        release.describe_and_sign(dist, COMMIT, key_of(tmp_path, "ecdsa"), "")
    assert not (dist / "SHA256SUMS.sig").exists()


@needs_ssh_keygen
def test_a_failed_signature_leaves_no_earlier_one(dist: Path, tmp_path: Path) -> None:
    release.describe_and_sign(dist, COMMIT, key_of(tmp_path), "")
    with pytest.raises(BuildError, match="did not sign"):
        signature.sign(dist / "SHA256SUMS", tmp_path / "no such key")
    assert not (dist / "SHA256SUMS.sig").exists()


def test_a_key_in_the_checkout_is_refused(dist: Path) -> None:
    with pytest.raises(BuildError, match="inside the checkout"):
        signature.sign(dist / "notes", ROOT / "build" / "key")


def test_the_provenance_names_files_commit_wheels_and_builder(dist: Path) -> None:
    files = [dist / "sikkerkey-mcp.pyz", dist / "server.json"]
    made = provenance.statement(files, "1.2.3", COMMIT, "https://ci.example.com/build@v1")
    stated = json.loads(made)
    assert (stated["_type"], stated["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert {one["name"]: one["digest"]["sha256"] for one in stated["subject"]} == digests
    source, lock, *wheels = stated["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source == {"name": "source", "digest": {"gitCommit": COMMIT}}
    locked_bytes = (ROOT / "requirements" / "wheels.lock").read_bytes()
    assert lock["digest"] == {"sha256": hashlib.sha256(locked_bytes).hexdigest()}
    assert [(one["name"], one["digest"]["sha256"]) for one in wheels] == [(w.filename, w.digest) for w in locked()]
    assert stated["predicate"]["runDetails"]["builder"] == {"id": "https://ci.example.com/build@v1"}
    assert not re.search(rb'"/|\\\\|file:', made)
    assert str(ROOT).encode() not in made
    assert provenance.statement(files[::-1], "1.2.3", COMMIT, "https://ci.example.com/build@v1") == made


# fmt: off
NO_PUBLIC_URIS = (
    "/home/me/build", "C:\\build", "file:///build", "my-laptop", "https://localhost/x", "https://10.0.0.7/x",
    "https://me:token@example.com/", "https://example.com:8443/", "http://example.com/", "https://example.com/?token=x",
)
# fmt: on


def test_a_builder_that_is_no_public_uri_is_refused_unrepeated() -> None:
    for builder in NO_PUBLIC_URIS:
        with pytest.raises(BuildError) as refused:
            pytest.fail(f"accepted: {provenance.checked_builder(builder)}")
        assert builder not in str(refused.value)
    for builder in ("", "urn:example:ci:7", "https://example.com/ci/build@refs/tags/v1"):
        assert provenance.checked_builder(builder) == (builder or provenance.UNNAMED_BUILDER)


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_only_a_clean_checkout_has_a_commit(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "--quiet")
    with pytest.raises(BuildError, match="git checkout"):
        provenance.source_commit(tmp_path)
    git("commit", "--quiet", "--allow-empty", "--message", "first")
    assert provenance.source_commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "new.py").touch()
    with pytest.raises(BuildError, match=r"new\.py"):
        provenance.source_commit(tmp_path)
