"""What validation costs, beside plain json.loads of the same bodies: python -m benchmarks.validation."""

import contextlib
import json
import timeit
from collections.abc import Callable
from typing import Any

from service import interceptors
from service.app import default_definition
from service.domain import chat
from service.domain.api import parse
from service.domain.exchange import Exchange
from service.interceptors.json_schema_validation import JsonSchemaValidation, Options

TURN = "Some words of a turn that is neither long nor short. " * 5


def bodies() -> dict[str, dict[str, Any]]:
    """What is validated, by its name."""
    turns = [{"role": ("user", "assistant")[turn % 2], "content": TURN} for turn in range(40)]
    question = [{"role": "user", "content": "What is a weir?"}]
    return {
        "short": {"model": "gpt-4o", "messages": question, "max_completion_tokens": 100},
        "40 turns": {"model": "gpt-4o", "messages": turns},
    }


def step() -> JsonSchemaValidation:
    """The step as the default definition has it."""
    api = parse(
        default_definition().read_text(),
        file="default",
        variables={"UPSTREAM_URL": "http://model.test/v1"},
        steps=interceptors.options(),
        phases=interceptors.phases(),
    )
    nothing: Any = None
    tools = interceptors.Tools(api, nothing, nothing, nothing, nothing, str)
    return JsonSchemaValidation(Options(), tools)


def microseconds(run: Callable[[], object]) -> float:
    """What one run costs: the best of several hundred, taken together."""
    return min(timeit.repeat(run, number=100, repeat=7)) / 100 * 1e6


def main() -> None:
    """Measure and print."""
    validation = step()
    for name, document in bodies().items():
        body = json.dumps(document).encode()
        exchange = Exchange(method="POST", path="/v1/chat/completions", query=b"", headers=[])
        exchange.chat = chat.parse(body)

        def validate(exchange: Exchange = exchange) -> None:
            with contextlib.suppress(StopIteration):
                validation.on_request(exchange).send(None)

        def load(body: bytes = body) -> None:
            json.loads(body)

        print(f"{name}: validation {microseconds(validate):.1f} us, json.loads {microseconds(load):.1f} us")


if __name__ == "__main__":
    main()
