"""A file for the result of a call: readable by its owner only, and created before anything is sent."""

from __future__ import annotations

import base64
import os
from contextlib import suppress

from sikkerkey_mcp import ConfigError, JsonObject, clean


class OutputFile:
    """The file of --to-file: readable by its owner only, and created before anything is sent.

    The result may be a credential that is shown only once, so an unwritable path must be found first.
    """

    def __init__(self, path: str, *, overwrite: bool) -> None:
        self.path = path
        self._temporary = f"{path}.{os.urandom(4).hex()}.new" if path and overwrite else path
        self._descriptor = -1
        self._done = False

    def __enter__(self) -> OutputFile:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        if self._temporary != self.path and os.path.lexists(self.path) and not os.path.isfile(self.path):
            raise ConfigError(f"{clean(self.path)} is not a regular file", "choose another --to-file FILE")
        try:
            if self.path:
                self._descriptor = os.open(self._temporary, flags, 0o600)
        except FileExistsError:
            raise ConfigError(f"{clean(self.path)} already exists", "--overwrite replaces it") from None
        except OSError as error:
            raise ConfigError(f"{clean(self.path)} cannot be written: {error.strerror}") from None
        return self

    def write(self, data: bytes) -> None:
        """Writes the result. Raises ConfigError; a file that cannot be renamed is kept under its temporary name."""
        hint = "check with list or get before you repeat it"
        try:
            descriptor, self._descriptor = self._descriptor, -1
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            self._done = True
            if self._temporary != self.path:
                hint = f"it is kept in {clean(self._temporary)}"
                os.replace(self._temporary, self.path)
        except OSError as error:
            message = f"the call succeeded, but its result cannot be written to {clean(self.path)}"
            raise ConfigError(f"{message}: {error.strerror}", hint) from None

    def __exit__(self, *_exception: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if self.path and not self._done:
            with suppress(FileNotFoundError):
                os.unlink(self._temporary)


def as_bytes(result: JsonObject) -> bytes:
    content = result["content"][-1]  # a file is preceded by a line about it
    if content["type"] == "resource":
        file = content["resource"]
        return file["text"].encode("utf-8") if "text" in file else base64.b64decode(file["blob"])
    text: str = content["text"]
    return f"{text}\n".encode("utf-8", "replace")
