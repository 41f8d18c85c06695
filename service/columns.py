"""Columns: rows as aligned lines, and texts of others that fit into a cell."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines, columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def cell(text: str, longest: int) -> str:
    """A text that somebody else wrote: its beginning, with what a terminal might obey or not show escaped."""
    begun = text[:longest]
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in begun)
    return shown + "…" * (len(text) > longest)
