"""Removes secret values from text, in every spelling in which a peer may repeat them.

A vault that quotes a request in an error may write a value in JSON, HTML, a URL, base64, hex or a Python literal, or in
one of these inside another. Nothing here knows MCP or the vault.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

REDACTED = "[cut out: plaintext]"
ANYWHERE_CHARACTERS = 8  # a shorter value is redacted only as a whole word, since `1` is part of many ids
RUN_CHARACTERS = 8  # so many letters and digits of a value in a row are no coincidence
SET_CHARACTERS = 40
QUICK_CHECK_CHARACTERS = 12
QUICK_CHECKS_MAX = 20_000_000  # characters to look at before one pass with all spellings is quicker
JSON_MAX_LEVELS = 1_000  # arrays and objects inside each other; json crashes at 9,500 where threads have small stacks


def values_to_redact(texts: Sequence[str]) -> list[str]:
    """What to remove if `texts` are secret, longest first.

    That is each text, each string in it if it is JSON, and their trimmed forms and lines, since a peer may trim what it
    repeats, or repeat one line of it. For a text that is a number, it is also how Python writes that number.
    """
    values = [*texts, *(value for text in texts for value in _strings_in_json(text))]
    values += [repr(number) for value in values if (number := _number(value)) is not None]
    lines = [line.strip() for value in values for line in value.splitlines()]
    values += [value.strip() for value in values] + [line for line in lines if len(line) >= ANYWHERE_CHARACTERS]
    return sorted(set(values) - {""}, key=len, reverse=True)


def innermost_strings(texts: Sequence[str]) -> list[str]:
    """`texts`, with the strings in it instead of each that is JSON: the names of members are no plaintext."""
    return [value for text in texts for value in _strings_in_json(text) or [text]]


def _strings_in_json(text: str) -> list[str]:
    """The strings and numbers in a JSON object or array, numbers as they are written; nothing for other texts."""
    if text.lstrip()[:1] not in ("{", "[") or nests_too_deeply(text.encode("utf-8", "replace")):
        return []
    try:
        return strings_in(json.loads(text, parse_float=str, parse_int=str, parse_constant=str))
    except (ValueError, RecursionError):
        return []


_STEPS = bytes.maketrans(b"[{]}", b"\1\1\xff\xff")  # as signed bytes: 1 and -1
_QUOTES_MAX = (
    600_000  # of strings that contain brackets: more than any answer has, and few enough to be removed quickly
)
_NEITHER_QUOTES_NOR_BRACKETS = bytes(set(range(256)) - set(b'"[]{}'))


def nests_too_deeply(text: bytes) -> bool:
    """Whether JSON in UTF-8 has more than JSON_MAX_LEVELS levels, found in linear time and without recursion.

    For text that is not JSON, False means that a parser finds the error before it is that deep.
    """
    if text.count(b"[") + text.count(b"{") <= JSON_MAX_LEVELS:  # nearly every text
        return False
    # Without the escapes, each quote begins or ends a string; two quotes together change nothing for what follows.
    unescaped = text.replace(rb"\\", b"").replace(rb"\"", b"")
    marks = unescaped.translate(None, _NEITHER_QUOTES_NOR_BRACKETS).replace(b'""', b"")
    if marks.count(b'"') > _QUOTES_MAX:
        return True
    steps = memoryview(re.sub(rb'"[^"]*"?', b"", marks).translate(_STEPS)).cast("b")
    return max(itertools.accumulate(steps), default=0) > JSON_MAX_LEVELS


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None  # neither infinite nor NaN


def strings_in(value: Any) -> list[str]:
    """Every string and number in a JSON value, the names of members excluded."""
    found, left = [], [value]
    while left:  # without recursion, so that no nesting is too deep
        item = left.pop()
        if isinstance(item, (dict, list)):
            left += item.values() if isinstance(item, dict) else item
        elif item is not None and not isinstance(item, bool):
            found.append(str(item))
    return found


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that replaces each of `secrets` in a text with REDACTED, the longest at each place, in one pass."""
    unspelled = {secret: _quick_check_tokens(secret) for secret in secrets if secret}
    if not unspelled:
        return str
    spellings = _Texts()
    left = QUICK_CHECKS_MAX

    def redact(text: str) -> str:
        nonlocal left
        if unspelled:
            left -= len(unspelled) * (len(text) + QUICK_CHECK_CHARACTERS)
            due = [each for each, tokens in unspelled.items() if left < 0 or any(token in text for token in tokens)]
            spellings.add(spelling for secret in due if unspelled.pop(secret) for spelling in _spellings(secret))
        return spellings.replaced(text)

    return redact


class _Texts:
    """Finds many texts in one pass: those of ANYWHERE_CHARACTERS or more anywhere, shorter ones as whole words."""

    def __init__(self) -> None:
        self._short: set[str] = set()
        self._short_lengths: list[int] = []  # the longest first
        self._long: dict[str, list[str]] = {}  # by their first characters, the longest first
        self._first: re.Pattern[str] | None = None  # one of their first characters

    def add(self, texts: Iterable[str]) -> None:
        """Finds these too."""
        added = set(texts) - {""}
        if not added:
            return
        for text in added:
            if len(text) < ANYWHERE_CHARACTERS:
                self._short.add(text)
            else:
                self._long.setdefault(text[:ANYWHERE_CHARACTERS], []).append(text)
        for same_beginning in self._long.values():
            same_beginning.sort(key=len, reverse=True)
        self._short_lengths = sorted({len(text) for text in self._short}, reverse=True)
        first = {re.escape(text[0]) for text in (*self._short, *self._long)}
        self._first = re.compile(f"[{''.join(sorted(first))}]")

    def replaced(self, text: str) -> str:
        """`text` with REDACTED for each of the texts."""
        if self._first is None:
            return text
        kept, end = [], 0
        for match in self._first.finditer(text):
            start = match.start()
            if start >= end and (length := self._length_at(text, start)):
                kept.append(text[end:start])
                end = start + length
        return REDACTED.join([*kept, text[end:]])

    def _length_at(self, text: str, start: int) -> int:
        for each in self._long.get(text[start : start + ANYWHERE_CHARACTERS], ()):
            if text.startswith(each, start):
                return len(each)
        for length in self._short_lengths:
            if text[start : start + length] in self._short and _is_word(text, start, start + length):
                return length
        return 0


def _is_word(text: str, start: int, end: int) -> bool:
    return not (_continues_word(text[start - 1 : start]) or _continues_word(text[end : end + 1]))


def _continues_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def letters_and_digits(text: str) -> str:
    """The letters and digits of `text`, with compatible forms (NFKC) and upper and lower case as one."""
    if text.isascii():
        return re.sub("[^0-9a-z]+", "", text.lower())
    import unicodedata  # not at the top: most texts do not need it

    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


def run_finder(secrets: Iterable[str]) -> Callable[[str], bool]:
    """Whether a text holds RUN_CHARACTERS letters and digits of one of `secrets` in a row, whatever is between them."""
    runs: set[str] = set()
    searched = [letters_and_digits(secret) for secret in secrets if len(secret) >= RUN_CHARACTERS]

    def holds_run(text: str) -> bool:
        if len(text) < RUN_CHARACTERS or not searched:
            return False
        found = _runs(letters_and_digits(text))
        if len(text) < SET_CHARACTERS:  # most texts of most answers: a set would take longer to make than to use
            return any(run in letters for run in found for letters in searched)
        if not runs:
            runs.update(run for letters in searched for run in _runs(letters))
        return not runs.isdisjoint(found)

    return holds_run


def whole_finder(secrets: Iterable[str]) -> Callable[[str], bool]:
    """Whether a text holds one of those `secrets` that have ANYWHERE_CHARACTERS or more, in any spelling or case."""
    searched = [secret for secret in secrets if len(secret) >= ANYWHERE_CHARACTERS]
    redact = redactor(searched)
    letters = {each for secret in searched if len(each := letters_and_digits(secret)) >= RUN_CHARACTERS}

    def holds(text: str) -> bool:
        if len(text) < ANYWHERE_CHARACTERS or not searched:
            return False
        folded = letters_and_digits(text)
        return any(each in folded for each in letters) or redact(text) != text

    return holds


def _runs(letters: str) -> Iterator[str]:
    return (letters[start : start + RUN_CHARACTERS] for start in range(len(letters) - RUN_CHARACTERS + 1))


def _quick_check_tokens(secret: str) -> set[str]:
    """Every spelling contains one of these texts. Making all spellings of a long value takes a second."""
    word = max(re.findall("[A-Za-z0-9]+", secret), key=len, default="")[:QUICK_CHECK_CHARACTERS]
    data = word.encode("ascii")  # no encoding escapes it
    return {word, data.hex(), data.hex().upper(), *_certain_base64(data)}


def _spellings(secret: str) -> set[str]:
    """`secret` as it is, in JSON, in JSON inside JSON, in HTML, URLs, base64, hex and Python literals.

    HTML, URLs, base64 and hex may hold the whole body of a request, in which the value already stands in JSON.
    """
    data = secret.encode("utf-8", "replace")
    forms = {repr(secret)[1:-1], repr(data)[2:-1]}
    for each in {data, *(text.encode("utf-8", "replace") for text in _json_spellings(secret))}:
        forms |= {each.hex(), each.hex().upper(), *_base64_spellings(each)}
    for text in {secret, _in_json(secret)}:
        forms |= _html_spellings(text) | _percent_spellings(text)
    for text in (secret, *_html_spellings(secret)):
        forms.update({text}, _json_spellings(text))
    return forms.union(*map(_json_spellings, _json_spellings(secret)))


# The quotes as Python, Go, Ruby, PHP and XML write them.
HTML_NAMES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
HTML_QUOTES = [
    ("&quot;", "&#x27;"),
    ("&#34;", "&#39;"),
    ("&quot;", "&#39;"),
    ("&quot;", "&#039;"),
    ("&quot;", "&apos;"),
]
HTML_NUMBERS = ["&#%d;", "&#x%x;", "&#x%X;"]


def _html_spellings(text: str) -> set[str]:
    """Markup by name and other characters as they are, what is not ASCII by number, or all punctuation by number."""
    named = text.translate(HTML_NAMES)
    forms = {named.replace('"', double).replace("'", single) for double, single in HTML_QUOTES}
    forms |= {form.encode("ascii", "xmlcharrefreplace").decode("ascii") for form in forms}
    others = set(re.findall("[^0-9A-Za-z]", text))
    return forms | {text.translate({ord(other): number % ord(other) for other in others}) for number in HTML_NUMBERS}


def _percent_spellings(text: str) -> set[str]:
    """As paths, queries, forms and browsers write it, with upper-case and lower-case hex digits."""
    from urllib.parse import quote, quote_plus  # not at the top: it takes 5 ms to load, and a listing does not need it

    data = text.encode("utf-8", "replace")
    forms = {quote_plus(data), *(quote(data, safe=safe) for safe in ("", "/", "!'()*"))}
    return forms | {re.sub("%..", lambda escape: escape[0].lower(), form) for form in forms}


# Characters that some JSON encoders escape although JSON does not require it.
ESCAPES_OF_GO, ESCAPES_OF_GSON, ESCAPES_OF_DOTNET = (
    str.maketrans({character: f"\\u{ord(character):04x}" for character in characters})
    for characters in ("<>&", "<>&='", "<>&'+`")
)


def _json_spellings(text: str) -> set[str]:
    """The inside of a JSON string as Python, Go, Gson, PHP and .NET write it."""
    in_ascii = json.dumps(text)[1:-1]
    forms = {_in_json(text), in_ascii}
    others = {form.translate(escapes) for form in forms for escapes in (ESCAPES_OF_GO, ESCAPES_OF_GSON)}
    dotnet = in_ascii.replace('\\"', "\\u0022").translate(ESCAPES_OF_DOTNET)
    dotnet = re.sub(r"\\\\|\\u....", lambda escape: escape[0][:2] + escape[0][2:].upper(), dotnet)
    return forms | others | {form.replace("/", "\\/") for form in forms} | {dotnet}


def _in_json(text: str) -> str:
    """Characters as themselves, unless there is a lone surrogate, which UTF-8 cannot carry."""
    has_surrogate = re.search("[\ud800-\udfff]", text) is not None
    return json.dumps(text, ensure_ascii=has_surrogate)[1:-1]


def _base64_spellings(data: bytes) -> set[str]:
    """Base64 of `data`, and the part of it that is certain at each of the three alignments inside longer data."""
    import base64  # not at the top: only calls need it, and every start imports this module

    whole = {encode(data).decode("ascii").rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    return whole | {inside for inside in _certain_base64(data) if len(inside) >= ANYWHERE_CHARACTERS}


def _certain_base64(data: bytes) -> set[str]:
    import base64  # see _base64_spellings

    forms = {
        base64.b64encode(bytes(before) + data)[start : (before + len(data)) * 4 // 3].decode("ascii")
        for before, start in enumerate((0, 2, 3))
    }
    return forms | {form.replace("+", "-").replace("/", "_") for form in forms}
