"""What a reader sees as one is one part, in every script, and nothing that is seen is lost."""

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from xailab.core.words import words_of


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("not bad, not good", ["not", "bad", ",", "not", "good"]),
        ("don't l’amour rock'n'roll", ["don't", "l’amour", "rock'n'roll"]),
        ("state-of-the-art a_b", ["state-of-the-art", "a_b"]),
        ("3.14 1,000 50% $5 -5 20°C", ["3.14", "1,000", "50%", "$5", "-5", "20", "°", "C"]),
        ("C++ C# #tag @bob", ["C++", "C#", "#tag", "@bob"]),
        ("3+4=7", ["3", "+", "4", "=", "7"]),
        ("what?! (really) end...", ["what", "?!", "(", "really", ")", "end", "..."]),
        (":) :-( ;D :P <3 ^_^ k:)", [":)", ":-(", ";D", ":P", "<3", "^_^", "k", ":)"]),
        ("👍🏽👨‍👩‍👧🇩🇪🇫🇷1️⃣!", ["👍🏽", "👨‍👩‍👧", "🇩🇪", "🇫🇷", "1️⃣", "!"]),
        ("e\u0301te\u0301 caf\u00e9", ["e\u0301te\u0301", "caf\u00e9"]),
        ("这部电影好。", ["这", "部", "电", "影", "好", "。"]),
        ("カタカナ漢字です", ["カタカナ", "漢", "字", "で", "す"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("ดีนำ", ["ดี", "นำ"]),  # marks stay with their letter
        ("ល្អ", ["ល្អ"]),  # a stacked letter stays on the one above
        ("က္ခမာ", ["က္ခ", "မာ"]),
        ("नमस्ते दुनिया।", ["नमस्ते", "दुनिया", "।"]),
        ("العَرَبِيَّة ש״ס", ["العَرَبِيَّة", "ש״ס"]),
        ("a\u200bb", ["a", "b"]),  # a break that is not seen
        ("\ue000 x", ["\ue000", "x"]),  # a sign of someone's own font
        (" \n\u200b", []),
    ],
)
def test_parts_by_hand(text, parts):
    assert words_of(text) == parts


@given(st.text())
def test_nothing_that_is_seen_is_lost_and_no_character_is_cut(text):
    edges = {match.end() for match in regex.finditer(r"\X", text)} | {0}
    end = 0
    for part in words_of(text):
        begin = text.index(part, end)
        assert not regex.search(r"[^\s\p{Cc}\p{Cf}]", text[end:begin])
        end = begin + len(part)
        assert end in edges or regex.match(r"[\p{Cc}\p{Cf}\s]", text[end:])
    assert not regex.search(r"[^\s\p{Cc}\p{Cf}]", text[end:])
