"""First code that runs in the archive: refuses a Python that cannot run the rest, else starts the program.

A Python that is newer than the newest tested one is tried, after a warning.

Python 2.7 and 3.6 must be able to parse this file, so that they say why instead of printing a traceback.
"""

import sys

# build_zipapp.py writes the program's name and the SHA-256 of every other member here.
PROGRAM, BUILD = "", ""
NEWEST = (3, 15)  # of the Python versions that were tested


def unsuitable():
    # type: () -> str
    """What runs this, with %s for its version; empty if it can run the program."""
    if sys.version_info < (3, 9, 2):
        return "Python %s"
    if sys.implementation.name != "cpython":
        return sys.implementation.name + " (Python %s)"
    # Windows has no sys.abiflags, and sysconfig is slow to import; every build names itself in its version.
    if "free-threading" in sys.version:
        return "a free-threaded build of Python %s"
    return "a 32-bit build of Python %s" if sys.maxsize < 2**32 else ""


def warn_of_newer_python():
    # type: () -> None
    if sys.version_info[:2] > NEWEST and sys.stderr is not None:
        sys.stderr.write(
            "%s: warning: Python %d.%d is newer than %d.%d, the newest version that was tested\n"
            % ((PROGRAM,) + sys.version_info[:2] + NEWEST)
        )


def main():
    # type: () -> int
    from sikkerkey_runtime import Archive  # which older Pythons cannot parse

    archive = Archive(PROGRAM, BUILD, __spec__.loader)  # type: ignore[union-attr, arg-type]  # a zipimporter
    if not archive.is_unpacked():
        archive.import_from(["%s/%s" % (archive.path, tree) for tree in archive.trees] + [archive.path])
        from sikkerkey_unpack import unpack  # the first start of a build

        unpack(archive)
    if not archive.cache_failure:  # the archive itself may be replaced from now on
        archive.import_from([archive.directory])
    from sikkerkey_launch import run  # from there, where it has bytecode

    return run(archive)


if __name__ == "__main__":
    found = unsuitable()
    if found:
        from sikkerkey_refusal import refuse  # only if there is something to refuse

        refuse(
            PROGRAM,
            "%s: error: %s at %s cannot run this program; use 64-bit CPython 3.9.2 or newer, with the GIL "
            "(from python.org or your system's packages)"
            % (PROGRAM, found % ("%d.%d.%d" % sys.version_info[:3]), sys.executable),
        )
    warn_of_newer_python()
    try:
        sys.exit(main())
    except ImportError as error:  # as in Debian's python3-minimal, or in a build without OpenSSL or SQLite
        if error.name is None or error.name.startswith(("sikkerkey", "vault", "cryptography", "certifi")):
            raise
        sentence = (
            "%s: error: the Python at %s has no usable module %s; install all of Python "
            "(on Debian and Ubuntu with apt-get install python3, elsewhere from python.org)"
            % (PROGRAM, sys.executable, error.name)
        )
        try:
            from sikkerkey_refusal import refuse
        except ImportError:  # json is what is missing
            sys.exit(sentence)
        refuse(PROGRAM, sentence)
    except KeyboardInterrupt:  # before the program installs its own handler
        if sys.stderr is not None and sys.stderr.isatty():
            sys.stderr.write("\n")
        sys.exit(130)
