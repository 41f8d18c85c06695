"""Encodings: how texts become tokens; the one door to tiktoken."""

import base64
from collections.abc import Callable, Sequence

import tiktoken

# A text into the numbers of its tokens; what looks like a special token is plain text.
Encode = Callable[[str], Sequence[int]]

# How each encoding splits text before it merges bytes, as in tiktoken_ext/openai_public.py.
PATTERNS = {
    "o200k_base": "|".join(
        (
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        )
    ),
    "cl100k_base": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|"
    r" ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
}


def build(name: str, vocabulary: bytes) -> Encode:
    """What encodes as the encoding of that name does, from its .tiktoken text.

    Special tokens are left out: in what a client sends they are plain text. Safe in several threads, which
    run side by side: tiktoken lets go of the interpreter meanwhile.
    """
    pairs = (line.split() for line in vocabulary.splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    encoding = tiktoken.Encoding(name, pat_str=PATTERNS[name], mergeable_ranks=ranks, special_tokens={})
    ranks.clear()  # a third of what it takes: the encoding has them in a form of its own by now
    return encoding.encode_ordinary
