"""Options: how the definition says that tokens of some models are counted."""

import re
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.domain.globs import LONGEST, Globs, Pattern
from service.domain.measures import Percent, kebab
from service.domain.tokens.families import FACTS
from service.domain.usage import MOST_TOKENS

# Of a glob, what stands for one character that is not said: any, or one of a set as fnmatch reads it.
_ONE = re.compile(r"\?|\[!?+\]?+[^\]]*\]")
_SOME = "\0"  # a character that no glob names


def _known(model: str) -> str:
    if any(character in model for character in "*?["):
        raise ValueError("expected the name of one model, not a glob")
    if not any(fnmatchcase(model, glob) for fact in FACTS for glob in fact.models.split()):
        raise ValueError(
            "expected a model of which Weir knows how it counts, by OpenAI's name, such as gpt-4o"
        )
    return model


Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]


class ModelOptions(BaseModel):
    """How some models count.

    `like` is a model that they count as, where their own name says nothing: by its encoding, its format, and
    what its images cost. `bytes_per_token` counts text by its bytes of UTF-8 instead of an encoding.
    `margin`, in per cent, is added to the count of a prompt. `image`, `audio` and `file` are the tokens of
    one of which nothing can be known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=kebab)

    like: Annotated[str, AfterValidator(_known)] | None = None
    bytes_per_token: Annotated[float, Field(ge=1, le=16)] | None = None
    margin: Percent = 0
    image: Tokens | None = None
    audio: Tokens | None = None
    file: Tokens | None = None


def _telling(options: ModelOptions) -> ModelOptions:
    if all(getattr(options, name) is None for name in options.model_fields_set):
        names = ", ".join(sorted(field.alias or name for name, field in ModelOptions.model_fields.items()))
        raise ValueError(f"expected at least one of {names}")
    return options


# By globs of models, of which the first that matches counts.
Counting = Mapping[str, ModelOptions]
# The same as the definition writes it: `{"llama-*": {bytes-per-token: 3.5, margin: 10%}, "*": {file: 8000}}`.
CountingOption = dict[Pattern, Annotated[ModelOptions, AfterValidator(_telling)]]


def unreached(globs: Collection[str]) -> Iterator[tuple[str, str]]:
    """Globs that never count, as one before them matches whatever they match; each with that one."""
    before: list[tuple[str, Globs]] = []
    for glob in globs:
        texts = _extremes(glob)
        wide = next((wide for wide, matching in before if all(map(matching.match, texts))), None)
        if wide is not None:
            yield glob, wide
        if "[" not in glob:  # a set may match what nobody names here, and not all that somebody does
            before.append((glob, Globs((glob,))))


def _extremes(glob: str) -> list[str]:
    """What a glob matches at its shortest and its longest.

    A glob without sets that matches both of them matches all that this one does: its `*` must have taken in
    what is unnamed there, since its `?` are too few for that.
    """
    one = _ONE.sub(_SOME, glob)
    return [one.replace("*", many * _SOME) for many in (0, LONGEST + 1)]
