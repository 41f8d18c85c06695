"""Encodings: texts into numbers of tokens, exactly, and within bounds whatever the text is."""

import base64
import re
from collections.abc import Iterator

import tiktoken

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

# Characters. tiktoken panics on a million spaces and holds 50 bytes a byte of an unbroken run.
_PIECE = 16_384
_LOOK_BACK = 2_048
_EXACT = 1_048_576

# No token of either encoding spans such a place, and neither pattern looks behind itself.
_SAFE_CUT = re.compile(r".*(?:(?<=\S)(?= )|(?<=[A-Za-z0-9])(?=\n))", re.DOTALL)


def build(name: str, vocabulary: bytes) -> tiktoken.Encoding:
    """The encoding of that name from its .tiktoken text.

    Special tokens are left out: in what a client sends they are plain text.
    """
    pairs = (line.split() for line in vocabulary.splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    return tiktoken.Encoding(name, pat_str=PATTERNS[name], mergeable_ranks=ranks, special_tokens={})


class Counter:
    """Counts the texts of one request.

    Exact for a million characters altogether; what goes beyond them counts as a token per byte of UTF-8, of
    which every text has at least as many as tokens. So neither time nor memory has to fear a text.
    """

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self._encode = encoding.encode_ordinary
        self._left = _EXACT

    def __call__(self, text: str) -> int:
        """The tokens of a text."""
        length = len(text)
        if length <= _PIECE and length <= self._left:
            self._left -= length
            return len(self._encode(text))
        exact, rest = text[: self._left], text[self._left :]
        self._left -= len(exact)
        tokens = sum(len(self._encode(piece)) for piece in pieces(exact))
        return tokens + len(rest.encode("utf-8", "surrogatepass"))


def pieces(text: str) -> Iterator[str]:
    """The text in pieces of bounded length, which together have the tokens of the whole.

    Where a run without spaces leaves no safe place to cut, a cut may cost a token.
    """
    at = 0
    while len(text) - at > _PIECE:
        end = at + _PIECE
        safe = _SAFE_CUT.match(text, end - _LOOK_BACK, end)
        cut = safe.end() if safe else end
        yield text[at:cut]
        at = cut
    yield text[at:]
