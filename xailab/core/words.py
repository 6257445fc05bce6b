"""The parts of a text that a reader sees as one: words of any script, signs, emoji."""

import regex

# Boundaries are Unicode's: of words (UAX 29, the flag WORD) and of grapheme clusters (\X). Thai,
# Khmer, Lao and Burmese write no spaces, and their words need a dictionary: each cluster is a part.
_EMOJI = r"""(?:
    (?=[\p{Emoji_Presentation}\p{Extended_Pictographic}\p{Regional_Indicator}]) \X
  | [0-9#*]\uFE0F?\u20E3
)"""
_SEGMENT = r"(?: \b (?=\w) \X+? \b )"
_NOTHING = r"[\s\p{Cc}\p{Cf}]"  # blanks, and what no one sees by itself
_PARTS = regex.compile(
    rf"""
    {_EMOJI}
  | (?<!\w) [<>]? [:;=] [-~^o'*]? [DPpOo3XxSs] (?!\w)    # :D, and hearts: these hold letters
  | < [/\\]? 3 (?!\w)
  | (?<!\w) [#@$€£¥+\-−]? {_SEGMENT}                     # a sign before it, as in #tag or -5
    (?: (?<= \p{{InSC=Invisible_Stacker}} ) {_SEGMENT} )*
    (?: [-‐‑] {_SEGMENT} )*                              # well-known
    (?: [+#%‰°]+ (?!\w) )?                               # C++, 50%
  | {_SEGMENT}
  | (?: (?! {_NOTHING} | [\p{{L}}\p{{N}}\p{{M}}] | {_EMOJI} ) \X )+   # !!!, :-)
  | (?! {_NOTHING} ) \X
    """,
    regex.VERBOSE | regex.WORD | regex.VERSION1,
)


def words_of(text: str) -> list[str]:
    """Return what a reader sees as one part of a text, in order: all but blanks.

    Words are whole, with their marks, apostrophes and inner hyphens; so are numbers, runs of
    signs (emoticons) and single emoji. Where a script has no spaces, one character as seen is one
    part (katakana: one run).

    >>> words_of("Don't go: it's a 3.5% well-known flop :-( 👎🏽")
    ["Don't", 'go', ':', "it's", 'a', '3.5%', 'well-known', 'flop', ':-(', '👎🏽']
    >>> words_of("好电影。")
    ['好', '电', '影', '。']
    """
    return _PARTS.findall(text)


def spans_of(text: str) -> list[tuple[int, int]]:
    """Return where each part that `words_of` names begins and ends.

    >>> spans_of("so good!")
    [(0, 2), (3, 7), (7, 8)]
    """
    return [part.span() for part in _PARTS.finditer(text)]
