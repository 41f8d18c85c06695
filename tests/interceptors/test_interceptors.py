"""A step is a file: found by its name, built with its options, asked which flows it takes part in."""

from dataclasses import replace

import pytest
from pydantic import BaseModel

from service import interceptors
from service.domain.api import Step
from service.interceptors.header import Header, Options
from tests.world import decoded


def tools() -> interceptors.Tools:
    return interceptors.Tools(api=None, ledger=None, tokenizer=None, logs=None, metrics=None, digest=str)  # type: ignore[arg-type]


def test_every_step_has_options_that_refuse_what_they_do_not_know() -> None:
    options = interceptors.options()

    assert {"header", "json-schema-validation"} <= set(options)
    for model in options.values():
        assert issubclass(model, BaseModel)
        assert (model.model_config["extra"], model.model_config["frozen"]) == ("forbid", True)


def test_every_step_takes_part_in_some_flow() -> None:
    phases = interceptors.phases()

    assert phases["header"] == ("request", "response")
    assert phases["json-schema-validation"] == ("request",)
    assert all(phases.values())


def test_a_step_is_built_from_its_name_and_options() -> None:
    assert isinstance(interceptors.build(Step("header", Options()), tools()), Header)


def test_every_step_that_does_not_fit_says_why() -> None:
    wrong = {"type": "object", "properties": {"a": {"type": "strinx"}}}
    validation: dict[str, object] = {"json-schema-validation": {}}
    api = replace(decoded([validation, {"header": {}}, validation], []), request_schema=wrong)
    assert interceptors.unfit(replace(tools(), api=api)) == ["not a JSON Schema of draft 7: Unknown type"] * 2
    assert interceptors.unfit(replace(tools(), api=replace(api, request_schema={}))) == []


def test_a_step_that_is_no_file_cannot_be_built() -> None:
    with pytest.raises(ModuleNotFoundError):
        interceptors.build(Step("heade", Options()), tools())
