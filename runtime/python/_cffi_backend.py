"""The part of _cffi_backend that cryptography's native library uses when it is initialised.

cffi itself needs a native library for each minor version of Python. The library asks it only for the address of a
buffer; the rest serves OpenSSL bindings that signatures do not use, and asking for one of those is an AttributeError.
"""

from __future__ import annotations

from array import array
from types import ModuleType, SimpleNamespace


def _from_buffer(data: bytes) -> array[int]:
    return array("B", data)


def _cast(_kind: str, buffer: array[int]) -> int:
    return buffer.buffer_info()[0]


def _init_cffi_1_0_external_module(_exports: int) -> ModuleType:
    bindings = ModuleType("_openssl")
    vars(bindings).update(ffi=SimpleNamespace(from_buffer=_from_buffer, cast=_cast), lib=SimpleNamespace())
    return bindings
