import pytest

from service.adapters import vocabularies
from service.domain.tokens import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer({name: vocabularies.read(name) for name in vocabularies.SHA256})
