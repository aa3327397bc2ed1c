"""What build_zipapp.py writes into the archive about itself; in the archive, sikkerkey_archive.py."""

# sha256 over every other member.
BUILD: str
# Top-level modules and packages that the archive holds.
MODULES: tuple[str, ...]
# Platform -> (name in the cache, offset in the archive, bytes there (raw deflate), bytes unpacked, sha256 unpacked).
LIBRARIES: dict[str, tuple[str, int, int, int, str]]
# Everything but the libraries lies from this offset to the end of the archive.
COMMON: int
