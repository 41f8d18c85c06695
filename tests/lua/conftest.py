"""What the tests of the scripts share: the scripts, loaded on an empty server."""

import pytest
import redis

from tests.lua.calls import Calls


@pytest.fixture
def calls(server: redis.Redis) -> Calls:
    return Calls(server)
