"""Plays a person with a browser: opens a page, fills in its form and submits it. Clients start it instead of a browser.

    python -I browser.py NOTES ADDRESS

NOTES is a directory. Its file `value` has the text that is typed into the form; `visits.jsonl` gets a line for each
page, with its address, the status, the text and the time of the request; `started.txt` gets each ADDRESS. A file
as ADDRESS must lead on to a page, by a `refresh`.
"""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.error
import urllib.request
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

PAGE_MAX_S = 30.0
TYPED = ("text", "password", "textarea")
Attributes = list[tuple[str, "str | None"]]


class FormReader(HTMLParser):
    """Reads the first form of a page: `action` is None if there is none. Fills each text field with `typed`.

    Boxes are ticked, and the first button is pressed.
    """

    def __init__(self, typed: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: list[tuple[str, str]] = []
        self._typed, self._in_form, self._has_button = typed, False, False

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        """Notes a form or one of its fields."""
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and self.action is None:
            self.action, self._in_form = given.get("action", ""), True
        if not self._in_form or tag not in ("input", "textarea", "button"):
            return
        default = {"input": "text", "textarea": "textarea", "button": "submit"}[tag]
        kind = given.get("type", default) if tag != "textarea" else default
        if kind == "submit":
            if self._has_button:
                return
            self._has_button = True
        if "name" in given and kind in (*TYPED, "hidden", "checkbox", "submit"):
            value = self._typed if kind in TYPED else given.get("value", "on" if kind == "checkbox" else "")
            self.fields.append((given["name"], value))

    def handle_endtag(self, tag: str) -> None:
        """Notes the end of the form."""
        if tag == "form":
            self._in_form = False


def target_of(address: str) -> str:
    """The page's URL. A local file names it in a `refresh`."""
    path = urlsplit(address).path if address.startswith("file:") else address
    if address.startswith(("http:", "https:")):
        return address
    found = re.search(r"""url=([^"'>\s]+)""", Path(path).read_text(encoding="utf-8"), re.IGNORECASE)
    if not found or not found[1].startswith("http"):
        raise SystemExit("the file leads to no page")
    return unescape(found[1])


def visit(url: str, notes: Path, data: bytes | None = None) -> str:
    """Opens a page as a browser does, notes it and returns its text."""
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    fetch = {"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1"}
    sent = {"Origin": origin, "Sec-Fetch-Site": "same-origin"} if data else {"Sec-Fetch-Site": "none"}
    request = urllib.request.Request(url, data, {**fetch, **sent})  # noqa: S310 - http, see target_of
    visit = {"url": url, "sent": bool(data), "time_s": time.time()}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        reply: Any = opener.open(request, timeout=PAGE_MAX_S)
    except urllib.error.HTTPError as error:
        reply = error
    with reply:
        text: str = reply.read().decode("utf-8", "replace")
    with open(notes / "visits.jsonl", "a", encoding="utf-8") as file:
        print(json.dumps({**visit, "status": reply.status, "text": text}), file=file)
    return text


def main(arguments: list[str]) -> int:
    """Opens the page, and submits its form if there is one."""
    notes, url = Path(arguments[0]), target_of(arguments[-1])
    with open(notes / "started.txt", "a", encoding="utf-8") as file:
        print(arguments[-1], file=file)
    form = FormReader((notes / "value").read_text(encoding="utf-8"))
    form.feed(visit(url, notes))
    if form.action is not None:
        visit(urljoin(url, form.action), notes, urlencode(form.fields).encode("ascii"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
