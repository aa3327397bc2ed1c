"""The regular expressions of enrollment tokens: the results of `re`, in linear time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.domains.patterns import MAX_PATTERN, MAX_STEPS, compile_pattern, matches

ATOMS = st.sampled_from(["a", "b", ".", "-", "[ab]", "[^a]", r"\d", r"\.", "[a-c]", r"[\w-]"])
QUANTIFIERS = st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "+?"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        inner.map("({})".format),
        st.tuples(inner, QUANTIFIERS).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(PATTERNS, st.text("ab.1-\n", max_size=6))
def test_a_pattern_matches_what_the_standard_library_matches(pattern: str, text: str) -> None:
    expected = re.fullmatch(pattern, text) is not None
    assert matches(compile_pattern(pattern), text) == expected
    assert matches(compile_pattern(f"^(?:{pattern})$"), text) == expected


def test_patterns_that_backtrack_exponentially_in_re_match_quickly() -> None:
    for pattern in ["(a+)+b", "(a|aa)+b", "(a*)*b", "(?:a?){100}a{100}", ".*.*.*.*.*.*.*.*b"]:
        program = compile_pattern(pattern)
        assert len(program) <= MAX_STEPS, pattern
        assert not matches(program, "a" * 255 + "!"), pattern


def test_an_unsupported_or_too_large_pattern_is_refused() -> None:
    for pattern in [
        "",
        "^$",
        "a|",
        "()",
        "*a",
        "a**",
        "(a",
        "a)",
        "[a",
        "[]",
        "[b-a]",
        "[a--b]",
        "[[a]",
        "a{2,1}",
        "a{0}",
        "a{",
        "a^b",
        "a$b",
        "\\",
        r"\bweb",
        r"(a)\1",
        "(?=a)a",
        "(?P<x>a)",
        "(?i)a",
        "(((a{9}){9}){9})",
        "(?:a{999}){999}",
        "a" * (MAX_PATTERN + 1),
    ]:
        with pytest.raises(ValueError, match=r"."):
            compile_pattern(pattern)


def test_the_longest_nesting_that_fits_is_accepted() -> None:
    depth = (MAX_PATTERN - 1) // 2
    assert matches(compile_pattern("(" * depth + "a" + ")" * depth), "a")
