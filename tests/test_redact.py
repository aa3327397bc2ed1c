"""Secret values are removed from text in every spelling, and nothing else is."""

from __future__ import annotations

import base64
import html
import json

import pytest

import sikkerkey_redact
from sikkerkey_redact import REDACTED, redactor, strings_in, values_to_redact
from tests.support import leak_search

SECRETS = [
    leak_search.MARK,
    'pa<ss>&"wø\\rd/+=',
    "correct horse battery staple",
    "søg",
    "a&b",
    "+/=",
    "<&>'\"",
]


def test_every_spelling_is_removed() -> None:
    for secret in SECRETS:
        redact = redactor([secret])
        for spelling in leak_search.spellings(secret):
            text = redact(f"bad value: {spelling} (400)")
            assert spelling not in text, (secret, spelling)
            # Only the padding of base64 may stay.
            assert text.replace("=", "") == f"bad value: {REDACTED} (400)", (secret, spelling)


def test_base64_of_something_longer_is_removed() -> None:
    for secret in [secret for secret in SECRETS if len(secret) >= 16]:
        redact = redactor([secret])
        data = secret.encode("utf-8", "replace")
        for before in range(4):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                text = redact(encode(b"x" * before + data + b"yy").decode())
                assert leak_search.found(text.encode(), [secret]) == [], (secret, before)
                assert REDACTED in text


def test_short_value_is_removed_as_a_word_only() -> None:
    redact = redactor(["7"])
    assert redact("sk_17 has 7, 77 and 7.") == f"sk_17 has {REDACTED}, 77 and {REDACTED}."
    assert redactor(["12345678"])("id12345678x") == f"id{REDACTED}x"


def test_other_text_stays() -> None:
    redact = redactor(values_to_redact(["correct horse battery staple", "søg"]))
    for text in ("", "correct", "a horse", "søger", REDACTED, '{"id":"sk_1"}'):
        assert redact(text) == text


def test_values_are_removed_in_the_given_order() -> None:
    assert redactor(values_to_redact(["abcdefgh", "abcdefghij"]))("abcdefghij") == REDACTED
    assert redactor([])("text") == "text"


def test_values_to_redact() -> None:
    # fmt: off
    rows = [
        ([], []),
        ([""], []),
        (["  "], ["  "]),
        (["a", "ccc", "bb", "a"], ["ccc", "bb", "a"]),
        ([" padded\n"], [" padded\n", "padded"]),
        (["first line here\n  second line  \nshort"],
         ["first line here\n  second line  \nshort", "first line here", "second line"]),
        (['{"a":["x",{"b":"yy"}],"c":true,"d":null,"e":1.50}'],
         ['{"a":["x",{"b":"yy"}],"c":true,"d":null,"e":1.50}', "1.50", "1.5", "yy", "x"]),
        ([' ["zz"]'], [' ["zz"]', '["zz"]', "zz"]),
        (["[1e400,NaN]"], ["[1e400,NaN]", "1e400", "NaN"]),
        (['"no object"'], ['"no object"']),
        (["[" * 100_000], ["[" * 100_000]),
    ]
    # fmt: on
    for texts, values in rows:
        assert values_to_redact(texts) == values, texts


def test_strings_in_a_value_of_any_depth() -> None:
    deep = json.loads('{"name":[1,true,null,"x"],"b":2.5}')
    for _ in range(100_000):
        deep = [deep]
    assert sorted(strings_in(deep)) == ["1", "2.5", "x"]


def test_long_value_is_spelled_only_where_it_may_be_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sikkerkey_redact, "_spellings", lambda _secret: pytest.fail("spelled"))
    redact = redactor(["<&>ø and a long value"])
    assert redact("something else") == "something else"
    with pytest.raises(pytest.fail.Exception):
        redact("a value, maybe")


def test_characters_that_every_json_encoder_escapes_are_removed() -> None:
    for secret in ("half a surrogate pair \ud800 <&>", "a surrogate\tbetween\r\nlines"):
        redact = redactor([secret])
        for spelling in (secret, json.dumps(secret), json.dumps(json.dumps(secret)), html.escape(json.dumps(secret))):
            assert "surrogate" not in redact(spelling), spelling


class Watched(str):
    """A text that counts how many characters were searched in it."""

    searched = 0

    def __contains__(self, part: str) -> bool:  # type: ignore[override]
        Watched.searched += len(self)
        return super().__contains__(part)


def test_many_lines_are_searched_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "searched", 0)
    lines = [f"line-{number * 7919:08x}-{number}" for number in range(1_000)]
    redact = redactor(lines)
    text = Watched("some other text " * 30_000 + lines[7])
    assert redact(text).endswith(f" {REDACTED}")
    # Not once for each line.
    assert Watched.searched <= sikkerkey_redact.QUICK_CHECKS_MAX
    assert [redact(Watched(line)) for line in lines[::100]] == [REDACTED] * 10


def test_longest_secret_at_a_place_is_removed() -> None:
    secrets = ["abcdefgh", "abcdefghijkl", "ab", "abc def"]
    text = "abcdefghijklm abcdefghi ab abc def"
    assert redactor(secrets)(text) == f"{REDACTED}m {REDACTED}i {REDACTED} {REDACTED}"


def test_run_is_found_whatever_is_between_its_characters() -> None:
    for secret in ("Tr0ub4dor&3", "x" * 5_000 + "Tr0ub4dor&3"):
        holds_run = sikkerkey_redact.run_finder([secret, "short", ""])
        for text in ("TR0UB4DO", "t-r-0-u-b-4-d-o", "ｔｒ０ｕｂ４ｄｏ", "and " * 20 + "r0ub 4dor 3"):
            assert holds_run(text), text
        for text in ("Tr0ub4d", "short", "", "tr0u b5do", "and " * 20):
            assert not holds_run(text), text
