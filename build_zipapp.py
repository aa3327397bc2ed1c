"""Builds the archives: dist/sikkerkey-mcp.pyz and dist/sikkerkey-vault.pyz, each one executable file.

The same sources give the same bytes on every machine. The bill of materials, all licences in one file and SHA256SUMS
are written next to an archive.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from bundle.archives import PROGRAMS, build
from bundle.documents import write_sums
from bundle.members import BuildError, write
from bundle.wheels import PLATFORMS, relock


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--program", choices=sorted(PROGRAMS), default="mcp")
    parser.add_argument("--platform", action="append", choices=PLATFORMS, help="default: all of them; repeatable")
    parser.add_argument("--output", type=Path, help="default: below dist/, named after program and platform")
    parser.add_argument("--source", type=Path, default=ROOT, help="directory of the program, for tests of runtime/")
    parser.add_argument("--relock", type=Path, metavar="FILE", help="only write wheels.lock, from the pins in FILE")
    return parser.parse_args(argv)


def default_output(name: str, platforms: list[str] | None) -> Path:
    return ROOT / "dist" / f"{'-'.join([name, *(platforms or [])])}.pyz"


def run(options: argparse.Namespace) -> None:
    if options.relock:
        projects = [project for program in PROGRAMS.values() for project in program.projects]
        relock(options.relock, projects, native=["cryptography"])
        return
    program = PROGRAMS[options.program]
    output: Path = options.output or default_output(program.name, options.platform)
    built = build(program, options.platform or program.platforms, options.source)
    write(output, built.archive, 0o755)
    write(output.with_suffix(".cdx.json"), built.sbom)
    write(output.with_name(f"{output.stem}-licenses.txt"), built.licenses)
    write_sums(output.parent)
    print(f"{hashlib.sha256(built.archive).hexdigest()}  {output}  ({len(built.archive):,} bytes)")


def main(argv: list[str]) -> int:
    try:
        run(arguments(argv))
    except (BuildError, OSError) as error:
        print(f"build_zipapp: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
