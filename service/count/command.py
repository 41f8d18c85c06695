"""Command: `weir count`, from its arguments to its exit code."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import IO

from service import app
from service.adapters.vocabularies import VocabularyError
from service.columns import cell
from service.count import body as bodies
from service.count import comparison as comparisons
from service.count import known, sheet
from service.count.arguments import WORST
from service.count.comparison import Comparison
from service.count.spread import Case
from service.domain.api import DefinitionError
from service.domain.errors import InvalidRequest
from service.domain.tokens import Tokenizer
from service.domain.tokens.options import Counting
from service.settings import Settings

Complain = Callable[[Sequence[str]], None]

_LONGEST = 1000  # characters of a complaint about what somebody else wrote


def run(settings: Settings, options: argparse.Namespace, complain: Complain) -> int:
    """Count what is asked; 0: done, 1: the definition is bad, 2: what is to be counted cannot be read."""
    if options.worst is not None and options.against is None:
        complain(["--worst: expected only with --against"])
        return 2
    try:
        api = app.read_definition(settings.definition or app.default_definition(), settings)
        return (_count if options.against is None else _compare)(api.counting, options, complain)
    except DefinitionError as wrong:
        complain(wrong.errors)
        return 1
    except (VocabularyError, OSError) as error:
        complain([str(error)])
        return 2


def _count(counting: Counting, options: argparse.Namespace, complain: Complain) -> int:
    with _opened(options.file) as file:
        content = file.read()
    try:
        asked = bodies.read(content, options.model)
    except InvalidRequest as wrong:
        complain([f"{options.file}: {cell(wrong.message, _LONGEST)}"])
        return 2
    show = sheet.for_programs if options.json else sheet.for_people
    print(show(bodies.counted(asked, app.load_tokenizer(counting), counting)))
    return 0


def _compare(counting: Counting, options: argparse.Namespace, complain: Complain) -> int:
    """Line by line; after the first that is not as it should be, only what is wrong with others is told."""
    comparison = Comparison(WORST if options.worst is None else options.worst)
    tokenizer, wrong = app.load_tokenizer(counting), False
    with _opened(options.against) as file:
        for number, line in _lines(file):
            try:
                one = known.read(line, options.model)
            except known.Unfit as unfit:
                complain([f"{options.against}:{number}: {cell(str(unfit), _LONGEST)}"])
                wrong = True
                continue
            if one is None:
                comparison.skipped += 1
            elif not wrong:
                _add(comparison, tokenizer, number, one)
    if wrong:
        return 2
    show = comparisons.for_programs if options.json else comparisons.for_people
    print(show(comparison))
    return 0


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Those that are not empty, with their numbers."""
    return ((number, line) for number, line in enumerate(file, 1) if line.strip())


def _add(comparison: Comparison, tokenizer: Tokenizer, number: int, one: known.Known) -> None:
    model = one.asked.model
    tally = tokenizer.tally(one.asked.document, model)
    estimate = tally.finish().tokens
    comparison.add(Case(number, one.id, one.category, model, one.reported, estimate), tokenizer.family(model))
    comparison.bounded += tally.work.bounded > 0


def _opened(name: str) -> AbstractContextManager[IO[bytes]]:
    """A file, or stdin. Raises OSError."""
    return nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb")
