"""First code to run in the archive: refuses a Python that cannot run the rest, else runs it.

Python 2.7 and 3.6 must be able to parse this file, so that they say what is wrong instead of showing a traceback. And
every Python compiles it twice at each start, as it asks a zip archive for a module's file name first and then for its
code, and nothing in one has a bytecode cache. What can wait is in sikkerkey_start, which is compiled once.
"""

import sys
import types

# Written here by build_zipapp.py: the program's name, and the sha256 over every other member.
PROGRAM, BUILD = "", ""

# What runs this, if it is not suitable; %s is its version.
# Windows has no sys.abiflags, and sysconfig costs as much as the whole start; the version text is there everywhere.
wrong = (
    "Python %s"
    if sys.version_info < (3, 9, 2)
    else sys.implementation.name + " (Python %s)"
    if sys.implementation.name != "cpython"
    else "a free-threaded build of Python %s"
    if "free-threading" in sys.version
    else "a 32-bit build of Python %s"
    if sys.maxsize < 2**32
    else ""
)
if wrong:
    sys.exit(
        "%s: error: %s at %s was found, but 64-bit CPython 3.9.2 or newer, with the GIL, is needed: "
        "start this file with such a python3 (python.org, or your system's packages)"
        % (PROGRAM, wrong % ("%d.%d.%d" % sys.version_info[:3]), sys.executable)
    )


def outer_member(name):
    # type: (str) -> bytes
    return __spec__.loader.get_data(name)  # type: ignore[union-attr, no-any-return]  # a zipimporter


def compiled(name):
    # type: (str) -> types.CodeType
    return compile(outer_member(name + ".py"), "%s.pyz/%s.py" % (PROGRAM, name), "exec")


def imported(name, code):
    # type: (str, types.CodeType) -> types.ModuleType
    module = sys.modules[name] = types.ModuleType(name)
    exec(code, module.__dict__)  # noqa: S102 (how a module is imported)
    return module


if __name__ == "__main__":
    try:
        sys.exit(imported("sikkerkey_start", compiled("sikkerkey_start")).start())
    except KeyboardInterrupt:  # before the program could take care of it
        sys.exit(130)
