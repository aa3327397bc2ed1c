"""Bills of materials are validated against the schemas in CycloneDX's Python library."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any

import pytest
from jsonschema import Draft7Validator
from referencing import Registry, Resource

from bundle.archives import PROGRAMS
from tests.support.harness import ARCHIVE

SCHEMAS = importlib.resources.files("cyclonedx.schema") / "_res"
NAMES = ("bom-1.6.SNAPSHOT.schema.json", "spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")


def validator() -> Draft7Validator:
    """A validator for CycloneDX 1.6 and the schemas that it refers to; formats (URLs, times) are not checked."""
    schemas: dict[str, Any] = {name: json.loads((SCHEMAS / name).read_bytes()) for name in NAMES}
    known: Registry[Any] = Registry()
    for name, schema in schemas.items():
        known = known.with_resource(f"http://cyclonedx.org/schema/{name}", Resource.from_contents(schema))
    return Draft7Validator(schemas[NAMES[0]], registry=known)


def bill(program: str) -> Any:
    return json.loads((ARCHIVE.parent / f"{PROGRAMS[program].name}.cdx.json").read_bytes())


@pytest.mark.parametrize("program", PROGRAMS)
def test_bill_of_materials_is_valid(program: str) -> None:
    validator().validate(bill(program))


def test_the_schema_refuses_what_is_wrong() -> None:
    """References into all three schemas are followed."""
    wrong = bill("mcp")
    library = wrong["components"][0]
    library["licenses"] = [{"license": {"id": "No-Such-License"}}]
    wrong["components"][1]["hashes"][0]["content"] = "12"
    wrong["signature"] = {"algorithm": "none"}
    places = {".".join(map(str, error.absolute_path)) for error in validator().iter_errors(wrong)}
    assert places == {"components.0.licenses", "components.1.hashes.0.content", "signature"}
