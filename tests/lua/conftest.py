"""What the tests of the scripts share: the scripts, loaded on an empty server."""

import pytest
import redis
from hypothesis import settings

from tests.lua.calls import Calls


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A soak takes as long as it takes."""
    if settings.get_current_profile_name() == "soak":
        for item in items:
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture
def calls(server: redis.Redis) -> Calls:
    return Calls(server)
