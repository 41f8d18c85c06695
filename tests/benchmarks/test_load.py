"""Load: the request that is sent, and the arithmetic of what is heard."""

import json

import pytest

from benchmarks import request
from benchmarks.load import Heard, LoadError, percentile
from benchmarks.wrk import heard, script


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1.0), (0.01, 1.0), (0.5, 50.0), (0.501, 51.0), (0.99, 99.0), (1.0, 100.0)]
)
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == value


def test_a_percentile_of_few_values_is_one_of_them() -> None:
    assert [percentile([1.0, 2.0, 9.0], share) for share in (0.5, 0.99)] == [2.0, 9.0]
    assert percentile([], 0.5) == 0.0


@pytest.mark.parametrize("user", [0, 7, 999])
def test_every_body_is_as_long_and_differs_by_its_user_alone(user: int) -> None:
    document = json.loads(request.body(user))
    assert len(request.body(user)) == 733
    assert (document["user"], document["max_tokens"], len(document["messages"])) == (f"user-{user:04}", 64, 4)
    assert request.body(user) == request.body(0).replace(b"user-0000", b"user-%04d" % user)


def test_a_request_on_the_wire_says_its_length() -> None:
    head, _, content = request.whole("http://127.0.0.1:81", 3).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:81\r\n")
    assert b"content-length: 733" in head
    assert content == request.body(3)


def test_wrk_is_heard_by_the_last_line_of_its_script() -> None:
    said = '{"answers": 20, "seconds": 2.0, "p50": 1.5, "p99": 9.0, "refused": 1, "lost": 2}'
    assert heard(f"Running 2s test\n\n{said}\n", "") == Heard(20, 2.0, 1.5, 9.0, 1, 2)
    assert heard(said, "").rate == 10.0


def test_what_wrk_complains_of_is_told() -> None:
    with pytest.raises(LoadError, match="unable to connect"):
        heard("", "unable to connect to 127.0.0.1:1 Connection refused")


def test_the_script_leaves_the_user_open_and_nothing_else() -> None:
    before, after = request.body(0).decode().split("0000")
    assert f"local before, after, user = {json.dumps(before)}, {json.dumps(after)}, 0" in script()
