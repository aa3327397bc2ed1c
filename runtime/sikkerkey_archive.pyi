"""What build_zipapp.py writes into the archive about itself; in the archive, sikkerkey_archive.py."""

# The module whose main() is the program.
MAIN: str
# Top-level modules and packages that the archive holds.
MODULES: tuple[str, ...]
# Module -> member: those whose bytecode is kept in the cache; the two in the outer archive are compiled by __main__.
COMPILED: dict[str, str]
# Platform -> the directory of cryptography's Python files, and its native library followed by those that it needs
# beside it: (name in the cache, offset in the archive, bytes there (raw deflate), bytes unpacked, sha256 unpacked).
LIBRARIES: dict[str, tuple[str, tuple[tuple[str, int, int, int, str], ...]]]
# Offset and length of the inner archive, modules.zip, which holds what can be imported.
MODULES_AT: tuple[int, int]
