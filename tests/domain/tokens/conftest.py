from collections.abc import Mapping

import pytest

from service.adapters import vocabularies
from service.domain.tokens import Tokenizer
from service.domain.tokens.encodings import PATTERNS, Encode, build


@pytest.fixture(scope="session")
def encodings() -> Mapping[str, Encode]:
    """The real encodings, which take a second to build."""
    return {name: build(name, vocabularies.read(name)) for name in PATTERNS}


@pytest.fixture(scope="session")
def tokenizer(encodings: Mapping[str, Encode]) -> Tokenizer:
    return Tokenizer(encodings)
