"""A definition is decoded strictly: what is wrong is said at once, in full, and where it stands."""

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel

from service.domain.api import Api, DefinitionError, Step, parse
from service.domain.measures import Percent
from service.domain.policies import Window
from service.domain.tokens.options import ModelOptions

DEFINITIONS = Path(__file__).parents[1] / "definitions"
VARIABLES = {"UPSTREAM_URL": "http://models.test/v1/", "LIMIT": "20", "REGION": "north"}
EXPECTED = "# expected "  # a bad definition ends with what must be said about it, a line each


class Log(BaseModel, extra="forbid", frozen=True):
    bodies: Literal["none", "truncated", "full"] = "none"
    label: str = ""


class Policy(BaseModel, extra="forbid", frozen=True):
    name: str
    window: Window = 0
    burst: Percent = 0
    limit: int = 1


class Colour(StrEnum):
    GREEN = "green"


class Limit(BaseModel, extra="forbid", frozen=True):
    policies: tuple[Policy, ...]


GOOD_POLICY = Policy.model_construct(name="a", window=7_200_000, burst=10)
STEPS: Mapping[str, type[BaseModel]] = {"log": Log, "limit": Limit}
PHASES = {"limit": ("request",)}

GOOD = """\
openapi: 3.1.0
info: {title: Chat, version: 1.0.0}
x-weir:
  lifecycle: DEPRECATED
  base-path: /v1
  timeout: 1500ms
  max-body: 32MB
  upstream: ${UPSTREAM_URL}
  authentication: virtual-keys
  deprecated: 2026-01-31
  sunset: 2027-01-31
  flows:
    request:
      - log: {label: "${request.id} of ${user} in ${REGION}"}
      - limit: {policies: [{name: a, window: 2h, burst: 10%}]}
      - log: {bodies: full}
    response:
      - log: {}
paths:
  /v1/chat/completions:
    post:
      requestBody:
        content: {application/json: {schema: {$ref: '#/components/schemas/Request'}}}
components:
  schemas:
    Request: {type: object, properties: {stop: {$ref: '#/components/schemas/Stop'}}}
    Stop: {type: string}
"""


def decoded(text: str) -> Api:
    return parse(text, file="weir.yaml", variables=VARIABLES, steps=STEPS, phases=PHASES)


def errors(text: str) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        decoded(text)
    assert str(caught.value) == "\n".join(caught.value.errors)
    return caught.value.errors


def test_a_definition_becomes_values() -> None:
    api = decoded(GOOD)

    assert (api.title, api.version, api.lifecycle) == ("Chat", "1.0.0", "DEPRECATED")
    assert (api.base_path, api.upstream) == ("/v1", "http://models.test/v1")
    assert (api.timeout, api.max_body) == (1.5, 32 * 1024**2)
    assert api.authentication == "virtual-keys"
    assert (api.deprecated, api.sunset) == (date(2026, 1, 31), date(2027, 1, 31))
    assert api.response == (Step("log", Log()),)


def test_steps_keep_their_order_and_may_come_twice() -> None:
    first, limit, last = decoded(GOOD).request

    assert limit == Step("limit", Limit.model_validate({"policies": (GOOD_POLICY,)}))
    assert (first.name, last) == ("log", Step("log", Log(bodies="full")))


def test_upper_case_variables_are_replaced_and_lower_case_ones_are_left_for_run_time() -> None:
    options = decoded(GOOD).request[0].options

    assert options == Log(label="${request.id} of ${user} in north")


def test_a_variable_without_quotes_is_read_as_yaml_reads_its_value() -> None:
    in_block = "limit:\n          policies:\n            - name: a\n              limit: ${LIMIT}\n"
    text = GOOD.replace("limit: {policies: [{name: a, window: 2h, burst: 10%}]}\n", in_block)

    assert decoded(text).request[1].options == Limit(policies=(Policy(name="a", limit=20),))
    [error] = errors(text.replace("${LIMIT}", '"${LIMIT}"'))
    assert error.endswith('policies[0].limit: expected a valid integer, not "20"')


def test_variables_are_replaced_in_x_weir_alone() -> None:
    assert decoded(GOOD.replace("title: Chat", "title: '${NOBODY}'")).title == "${NOBODY}"


def test_the_request_schema_takes_its_references_along() -> None:
    schema = decoded(GOOD).request_schema

    assert schema["properties"] == {"stop": {"$ref": "#/components/schemas/Stop"}}
    assert schema["components"]["schemas"]["Stop"] == {"type": "string"}


def test_a_revision_names_the_text() -> None:
    assert decoded(GOOD).revision == decoded(GOOD).revision
    assert decoded(GOOD).revision != decoded(GOOD + "# changed\n").revision
    assert len(decoded(GOOD).revision) == 12


def test_a_step_of_which_no_phases_are_known_may_stand_in_both_flows() -> None:
    text = GOOD.replace("- log: {}", "- limit: {policies: []}")
    api = parse(text, file="weir.yaml", variables=VARIABLES, steps=STEPS)

    assert api.response == (Step("limit", Limit(policies=())),)


COUNTING = """\
  counting:
    "llama-*": {bytes-per-token: 3.5, margin: 10%}
    "acme-*": {like: gpt-4o}
    "*": {file: 8000, audio: 2400, image: 1445}
"""


def test_how_models_count_is_said_by_globs_in_their_order() -> None:
    counting = decoded(GOOD.replace("paths:\n", COUNTING + "paths:\n")).counting

    assert list(counting) == ["llama-*", "acme-*", "*"]
    assert counting["llama-*"] == ModelOptions.model_validate({"bytes-per-token": 3.5, "margin": "10%"})
    assert counting["acme-*"] == ModelOptions(like="gpt-4o")
    assert counting["*"] == ModelOptions(file=8000, audio=2400, image=1445)


def test_where_nothing_is_said_models_count_as_they_are_known() -> None:
    assert decoded(GOOD).counting == {}


def test_a_margin_of_nothing_says_that_a_later_one_is_not_meant() -> None:
    counting = '  counting: {"gpt-*": {margin: 0%}, "*": {margin: 5%}}\n'

    assert decoded(GOOD.replace("paths:\n", counting + "paths:\n")).counting["gpt-*"] == ModelOptions()


def test_a_retired_api_may_keep_its_dates() -> None:
    assert decoded(GOOD.replace("DEPRECATED", "RETIRED")).sunset == date(2027, 1, 31)


@pytest.mark.parametrize("path", sorted(DEFINITIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_bad_definition_is_refused_with_every_error_in_its_place(path: Path) -> None:
    text = path.read_text()
    expected = [line.removeprefix(EXPECTED) for line in text.splitlines() if line.startswith(EXPECTED)]

    assert errors(text) == [f"weir.yaml:{line}" for line in expected]
    assert expected


def test_a_choice_may_be_an_enumeration() -> None:
    class Paint(BaseModel):
        colour: Colour

    text = GOOD.replace("- log: {}", "- paint: {colour: gren}")
    with pytest.raises(
        DefinitionError, match=r"colour: expected 'green', not \"gren\" \(did you mean \"green\""
    ):
        parse(text, file="weir.yaml", variables=VARIABLES, steps={**STEPS, "paint": Paint})


def test_control_characters_are_no_yaml() -> None:
    [error] = errors("openapi: \x00")

    assert error.startswith("weir.yaml:1:1: expected YAML: unacceptable character")


def test_endless_nesting_is_no_definition() -> None:
    assert errors("[" * 100_000) == ["weir.yaml:1:65: expected nesting of no more than 64 levels"]


def test_a_name_that_is_a_list_is_no_name() -> None:
    text = GOOD.replace("  lifecycle", "  ? [a, b]\n  : ${NOBODY}\n  lifecycle")

    assert errors(text) == ["weir.yaml:4:5: x-weir: expected a name that is a string: quote it"]
