"""Options: how the definition says that tokens of some models are counted."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.domain.globs import Pattern
from service.domain.measures import Percent, kebab
from service.domain.usage import MOST_TOKENS

Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]


class ModelOptions(BaseModel):
    """How some models count.

    `like` is a model that they count as, where their own name says nothing. `bytes_per_token` counts text by
    its bytes of UTF-8 instead of an encoding. `margin` is added to the count of a prompt. `image`, `audio` and
    `file` are tokens for one of which nothing can be known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=kebab)

    like: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    bytes_per_token: Annotated[float, Field(ge=1, le=16)] | None = None
    margin: Percent = 0
    image: Tokens | None = None
    audio: Tokens | None = None
    file: Tokens | None = None


# By globs of models, of which the first that matches counts.
Counting = dict[Pattern, ModelOptions]
