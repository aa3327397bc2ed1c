"""Fuzzes `config` with MCP clients' files, valid and slightly damaged.

Property: `config --write` refuses a file and leaves it unchanged, or changes it so that an independent parser finds the
old content and our entry, and every byte of the old text is still there; `--remove` restores the old bytes.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import sikkerkey_mcp
from sikkerkey_cli import entries
from sikkerkey_cli.__main__ import main
from sikkerkey_cli.clients import CLIENTS, Client, user_file
from sikkerkey_cli.config import common_prefix_length
from sikkerkey_cli.entries import BOM, entry_members, is_blank
from tests.fuzz.mutation import mutated
from tests.support.config_parsers import jsonc_loads, toml, yaml_loads
from tests.support.harness import AGENT_ID, make_slot

READ: dict[str, Callable[[str], Any]] = {"json": jsonc_loads, "toml": toml.loads, "yaml": yaml_loads}
PARTS = {
    "OTHER": '{"command": "npx", "args": ["-y", "@a/b"], "env": {"T": "x=y"}}',
    "OURS": '{"command": "python3", "args": ["-I", "/old/sikkerkey-mcp.pyz", "serve"]}',
    "BLOCK": "\n      - -y\n    env: {T: 'x: y'} # c\n    description: |-\n      sikkerkey:\n        cmd: x\n",
}
# The names of PARTS are replaced; @ is the member that contains the servers.
FILES: dict[str, tuple[str, ...]] = {
    "json": (
        "", "\n", "// only a comment\n", "{}", "{\n}\n", '{"@": null}', '{"@":{}}', '{"@": {"a": OTHER}}\n',
        '{\n\t// mine\n\t"x": [1.10, 2e3,], /* } */\n\t"@": {\n\t\t"a": OTHER, // "@": {\n\t},\n}',
        '{\n  "@": {\n    "a": OTHER /* last */\n  } // end\n}\n', '{\n"@": { // none\n}, "z": "\\"@\\": {"}',
        '{"x": 1, "@": {"sikkerkey": OURS, "a": OTHER}}', '{\n  "@": {\n    "sikkerkey": OURS\n  }\n}\n',
        '{"@": {"sikkerkey": {"url": "http://x"}}}', '{"@": {"a": OTHER}, "@": {}}',
    ),
    "toml": (
        "", "# only a comment", "model = 'x'\n[@]\n", "[@.a]\ncommand = 'npx'\nargs = [\n  '-y', # ]\n]\n",
        "x.y = 1\n[[w]]\na = '''\n[@.sikkerkey]\n'''\n[@.'a.b'.env]\nT = \"x\" # c", "@.a.command = 'npx'\n",
        "[@]\na = { command = 'npx' }\n\n\n[z]\nd = 1979-05-27T07:32:00Z\n", "@ = { a = {} }\n", "[[@]]\n",
        "[@.sikkerkey]\ncommand = 'python3'\nargs = ['-I', '/old/sikkerkey-mcp.pyz', 'serve'] # c\n[z]\n",
        "[@.sikkerkey.env]\nA = 'b'\n[@.sikkerkey]\ncommand = 'sikkerkey-mcp.pyz'\n[@.a]\n[tui]\n",
        "[@]\nsikkerkey = { command = 'sikkerkey-mcp.pyz', args = [] }\na.command = 'x'\n",
    ),
    "yaml": (
        "", "# only a comment\n", "---\n", "x: 1", "@:\n", "@: {}\n", "@: [] # none\nz: 1\n",
        "# c\nx: [1, {a: 'b'}]\n@:\n  a:\n    cmd: npx\n    args:BLOCK\n# d\nz: 1\n",
        "@:\n-   name: a\n    command: npx\n    args:BLOCKz:\n  - 1\n", "@:\n  - name: a\n  - {name: b, command: c}\n",
        "@:\n- name: sikkerkey\n  command: python3\n  args: [-I, /old/sikkerkey-mcp.pyz, serve]\n- name: a\n",
        "@:\n  sikkerkey:\n    cmd: python3\n    args:\n    - -I\n    - /old/sikkerkey-mcp.pyz\n  a: {t: 1}\n",
        "p: >\n  folded\n\n  @:\n    sikkerkey:\n@:\n  a: &x {b: 1}\n  c: *x\n", "x: |+\n  kept\n\n\n",
        '"@":\n  a: plain text\n    that goes on\n"q": "over\n  lines"\n',
    ),
}  # fmt: skip
PIECES = {
    "json": (b"//", b"/*", b"*/", b",", b":", b"{", b"}", b'"', b"\n", b"\r", b"\t", b"\\", b"null,", b'"@": {}, '),
    "toml": (b"#", b"[", b"]", b"=", b".", b"'''", b'"""', b"'", b"\n", b"{", b"}", b",", b"[@]\n", b"\n@.b = 1\n"),
    "yaml": (b"#", b" ", b"\t", b": ", b"- ", b"\n", b"|\n", b">", b"'", b'"', b"&a ", b"---\n", b"@:\n", b"[", b"]"),
}


def generated(rng: Random, client: Client) -> bytes:
    """A random file of this client."""
    text = re.sub("|".join(PARTS), lambda found: PARTS[found[0]], rng.choice(FILES[client.format]))
    data = text.encode("utf-8")
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        place = rng.randrange(len(data) + 1)
        data = data[:place] + rng.choice(PIECES[client.format]) + data[place:]
    data = mutated(rng, data) if rng.random() < 0.2 else data
    data = data.replace(b"@", client.shape.container.encode("ascii"))
    data = data.replace(b"\n", b"\r\n") if rng.random() < 0.2 else data
    return BOM * (rng.random() < 0.1) + data


class Ran:
    """The result of one command line."""

    def __init__(self, *arguments: str) -> None:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            self.status = main(["config", *arguments])
        self.out, self.err = out.getvalue(), err.getvalue()
        self.done = re.match(r"(.+) (added to|updated in|is up to date in|removed from) /", self.out)


def read(client: Client, data: bytes) -> Any:
    """The document as an independent parser reads it."""
    text = data[len(BOM) :].decode("utf-8") if data.startswith(BOM) else data.decode("utf-8")
    empty = client.initial_text or {"json": "{}"}.get(client.format, "")
    return READ[client.format](empty if is_blank(text) else text) or {}


def apart(client: Client, document: Any, key: str) -> tuple[Any, list[Any], list[Any]]:
    """Everything but the servers, the other servers, and the servers with that key."""
    held = document.get(client.shape.container) or {}
    pairs = list(held.items()) if isinstance(held, dict) else [(_name(item), item) for item in held]
    around = {name: value for name, value in document.items() if name != client.shape.container}
    others = [(name, value) for name, value in pairs if name != key]
    return around, others, [value for name, value in pairs if name == key]


def _name(item: Any) -> Any:
    return item.get("name") if isinstance(item, dict) else None


def check_added(client: Client, old: bytes, new: bytes, key: str) -> None:
    """Only the entry and a comma were added, and only the brackets of an empty container were removed."""
    head = common_prefix_length(old, new)
    tail = common_prefix_length(old[head:][::-1], new[head:][::-1])
    replaced, added = old[head : len(old) - tail], new[head : len(new) - tail]
    if not replaced or added.startswith(b"," + replaced):
        return
    kept = re.sub(rb"\A[\s{}\[\]]*(?:null|~)?\s*|[\s}\]]*\Z", b"", replaced)
    assert kept in added, (replaced, added)
    assert not apart(client, read(client, old), key)[1], "text of other entries was removed"


def check_written(client: Client, old: bytes, new: bytes, ran: Ran) -> None:
    """Our entry is correct, and everything else is unchanged."""
    assert ran.done, ran.out
    key = ran.done[1]
    before, after = (apart(client, read(client, data), key) for data in (old, new))
    assert repr(after[:2]) == repr(before[:2])
    (entry,) = after[2]
    shape = client.shape
    words = [entry[shape.command], *entry[shape.args]] if shape.args else entry[shape.command]
    assert words == [sikkerkey_mcp.program()[0], "-I", sikkerkey_mcp.program()[1], "serve", "--agent", AGENT_ID]
    fixed = entry_members(shape, key, {"command": words[0], "args": words[1:]})
    assert {name: entry[name] for name in fixed} == fixed
    if ran.done[2] == "added to" and not is_blank(old.decode("utf-8").lstrip("\ufeff")):
        check_added(client, old, new, key)


def check(name: str, path: Path, old: bytes) -> None:
    """Writes, writes again and removes."""
    client = CLIENTS[name]
    path.write_bytes(old)
    os.utime(path, (0, 0))  # an emptied file is refused while a client may still be writing it
    ran = Ran(name, "--write")
    new = path.read_bytes()
    assert not [file for file in path.parent.iterdir() if file.name.startswith(f".{path.name}.")]
    if ran.status:
        assert re.search(f"^sikkerkey-mcp: error: {re.escape(str(path))}, .*\nhint: ", ran.err, re.MULTILINE), ran.err
        assert new == old
        return
    check_written(client, old, new, ran)
    again = Ran(name, "--write")
    assert (again.status, path.read_bytes()) == (0, new), "the second run changes something"
    removed = Ran(name, "--remove")
    assert removed.status == 0, removed.err
    if ran.done and ran.done[2] == "added to" and "removed from" in removed.out and removed.out.count("\n") == 1:
        assert path.read_bytes() == old, (name, old, new, path.read_bytes())


@contextmanager
def target() -> Iterator[Callable[[Random], None]]:
    """Fuzzes every client's file, in a temporary home."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory).resolve()
        os.chmod(home, 0o700)
        make_slot(home, "https://vault.example")
        names = [name for name, client in CLIENTS.items() if client.files]

        def case(rng: Random) -> None:
            name = rng.choice(names)
            path = Path(user_file(CLIENTS[name], os.environ))
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                check(name, path, generated(rng, CLIENTS[name]))
            finally:
                for file in path.parent.glob(f"{path.name}*"):
                    file.unlink()

        environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
        with mock.patch.dict(os.environ, environment, clear=True), mock.patch.object(entries, "SETTLE_S", 0.0):
            yield case
