"""First code to run in the archive: refuses a Python that cannot run the rest, in one sentence, then starts it.

Python 2.7 and 3.6 must be able to parse this file, so that they say what is wrong instead of showing a traceback.
"""
import sys

from sikkerkey_archive import PROGRAM

NEEDED = "64-bit CPython 3.9.2 or newer, with the GIL, is needed"
REMEDY = "start this file with such a python3 (python.org, or your system's packages)"


def found():
    # type: () -> str
    """What is wrong with this Python, or an empty string."""
    version = "%d.%d.%d" % sys.version_info[:3]
    if sys.version_info < (3, 9, 2):
        return "Python " + version
    if sys.implementation.name != "cpython":
        return sys.implementation.name + " (Python " + version + ")"
    # Windows has no sys.abiflags, and sysconfig costs as much as the whole start; the version text is there everywhere.
    if "free-threading" in sys.version:
        return "a free-threaded build of Python " + version
    if sys.maxsize < 2**32:
        return "a 32-bit build of Python " + version
    return ""


wrong = found()
if wrong:
    told = (PROGRAM, wrong, sys.executable, NEEDED, REMEDY)
    sys.stderr.write("%s: error: %s at %s was found, but %s: %s\n" % told)
    sys.exit(1)

import sikkerkey_runtime

sys.exit(sikkerkey_runtime.start())
