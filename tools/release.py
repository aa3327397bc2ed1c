"""A signed release (`make release`), its bundle (`make mcpb`), and proof that it can be repeated (`make verify`)."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bundle import documents, mcpb, provenance, signature
from bundle.archives import PROGRAMS
from bundle.members import BuildError, write
from bundle.wheels import PLATFORMS, ROOT
from sikkerkey_mcp import TOOLS
from tools import npm

DIST = ROOT / "dist"
VALIDATOR = "@anthropic-ai/mcpb@2.1.2"
SOURCES = ("LICENSE", "build_zipapp.py", "bundle", "requirements", "runtime", "sikkerkey_*", "vault")
# Two builds that have as little in common as one machine allows.
CIRCUMSTANCES: tuple[tuple[str, int, dict[str, str]], ...] = (
    ("first", 0o022, {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}),
    ("søren's second checkout", 0o077, {"TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "4711"}),
)


def make_mcpb(release: str, name: str) -> None:
    """Write the bundle and server.json, and validate the bundle with the official tool."""
    tools = [{"name": tool.name, "description": tool.text} for tool in TOOLS]
    bundled = mcpb.bundle(DIST / "sikkerkey-mcp.pyz", tools)
    write(DIST / "sikkerkey-mcp.mcpb", bundled)
    write(DIST / "server.json", mcpb.server_json(bundled, release, name))
    documents.write_sums(DIST)
    print(f"{hashlib.sha256(bundled).hexdigest()}  dist/sikkerkey-mcp.mcpb  ({len(bundled):,} bytes)")
    print(
        f"dist/server.json is for {name}: only the owner of that domain can publish it; REGISTRY_NAME=... names another"
    )
    validate(DIST / "sikkerkey-mcp.mcpb")


def validate(path: Path) -> None:
    """Have the official tool unpack the bundle and validate its manifest."""
    directory = ROOT / "build" / "mcpb"
    tool = directory / "node_modules" / ".bin" / "mcpb"
    npm.install(VALIDATOR, directory, lambda words: subprocess.run(["npm", *words], cwd=directory, check=True))
    unpacked = directory / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    subprocess.run([str(tool), "unpack", str(path), str(unpacked)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([str(tool), "validate", str(unpacked / "manifest.json")], check=True)


# -- release ---------------------------------------------------------------------------------------------------------


def release(url: str, name: str, key: str, builder: str) -> None:
    """Build everything from a clean commit into an empty dist/, and describe and sign it."""
    if not key:
        raise BuildError("name the key that signs: make release SIGNING_KEY=path")
    provenance.checked_builder(builder)
    commit = provenance.source_commit(ROOT)
    for path in [*documents.published(DIST), *DIST.glob("SHA256SUMS*")]:
        path.unlink()
    build_all(sys.executable, ROOT, 0o022, dict(os.environ))
    make_mcpb(url, name)
    print(f"dist/SHA256SUMS is signed by\n{describe_and_sign(DIST, commit, Path(key), builder)}")
    print("publish this line where people can find it without the release: they verify with it (docs/platforms.md)")


def describe_and_sign(directory: Path, commit: str, key: Path, builder: str) -> str:
    """Write the provenance of the published files, their checksums and the signature; return the signer's line."""
    files = [path for path in documents.published(directory) if path.name != provenance.NAME]
    stated = provenance.statement(files, documents.version(ROOT), commit, builder)
    write(directory / provenance.NAME, stated)
    documents.write_sums(directory)
    return signature.sign(directory / "SHA256SUMS", key)


# -- verify ----------------------------------------------------------------------------------------------------------


def another_python() -> str:
    """An interpreter of another minor version, or this one where there is no other."""
    for minor in range(9, 16):
        for directory in os.get_exec_path():
            found = shutil.which(f"python3.{minor}", path=directory)
            if minor == sys.version_info[1] or not found:
                continue
            if not subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode:
                return found
    print("verify: there is no Python of another minor version here, so both builds use one")
    return sys.executable


def checkout(directory: Path) -> None:
    """Copy what a build reads. The downloaded wheels are shared, because the build checks their digests."""
    shutil.rmtree(directory, ignore_errors=True)
    for pattern in SOURCES:
        for path in ROOT.glob(pattern):
            target = directory / path.name
            if path.is_dir():
                shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    (directory / "build").mkdir()
    (directory / "build" / "wheels").symlink_to(ROOT / "build" / "wheels")


def build_all(python: str, directory: Path, umask: int, environment: dict[str, str]) -> str:
    """Build every archive, full and for each platform; return the checksums."""
    everything = [("mcp", ""), ("vault", ""), *(("mcp", platform) for platform in PLATFORMS)]
    for program, platform in everything:
        command = [python, "-I", str(directory / "build_zipapp.py"), "--program", program]
        command += ["--platform", platform] if platform else []
        environment = {"PATH": os.environ["PATH"], **environment}
        subprocess.run(command, check=True, umask=umask, env=environment, cwd="/", stdout=subprocess.DEVNULL)
    return (directory / "dist" / "SHA256SUMS").read_text(encoding="utf-8")


def verify() -> None:
    """Build twice and compare, also with the archives in dist/."""
    pythons = (sys.executable, another_python())
    results = []
    for python, (name, umask, environment) in zip(pythons, CIRCUMSTANCES):
        directory = ROOT / "build" / "verify" / name
        checkout(directory)
        results.append(build_all(python, directory, umask, environment))
        print(f"built in {directory.relative_to(ROOT)} with {python}")
    if results[0] != results[1]:
        sys.exit(f"verify: the two builds differ:\n{results[0]}\n{results[1]}")
    print(results[0], end="")
    names = [f"{program.name}.pyz" for program in PROGRAMS.values() if (DIST / f"{program.name}.pyz").exists()]
    for name in names:
        if f"{hashlib.sha256((DIST / name).read_bytes()).hexdigest()}  {name}\n" not in results[0]:
            sys.exit(f"verify: dist/{name} is a different build: run `make zipapp vault-zipapp`")
    print("verify: the two builds are the same" + (f", and dist/ holds the same {', '.join(names)}" if names else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("task", choices=("mcpb", "release", "verify"))
    parser.add_argument("--release", default="", help="URL below which a release's files are published")
    parser.add_argument("--name", default=mcpb.REGISTRY_NAME, help="in the registry, below the publisher's domain")
    parser.add_argument("--key", default="", help="file with the Ed25519 key that signs the release")
    options = parser.parse_args()
    builder = os.environ.get("BUILDER_ID", "")
    tasks: dict[str, Callable[[], None]] = {
        "mcpb": partial(make_mcpb, options.release, options.name),
        "release": partial(release, options.release, options.name, options.key, builder),
        "verify": verify,
    }
    try:
        tasks[options.task]()
    except (BuildError, subprocess.CalledProcessError) as error:
        sys.exit(f"{options.task}: error: {error}")


if __name__ == "__main__":
    main()
