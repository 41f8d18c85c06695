"""What is there is documented, and what is documented is there."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from service import interceptors
from service.adapters import metrics
from service.adapters.ledger import scripts
from service.app import default_definition
from service.domain.api import Api, parse
from service.domain.policies import PolicyOptions
from service.domain.tokens.options import ModelOptions
from service.settings import described

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

OPTIONS = [
    (step, field.alias or name)
    for step, model in interceptors.options().items()
    for name, field in model.model_fields.items()
]


@pytest.mark.parametrize("step", interceptors.options())
def test_every_step_has_its_paragraph(step: str) -> None:
    assert f"**`{step}`**" in README


@pytest.mark.parametrize(("step", "option"), OPTIONS)
def test_every_option_of_a_step_is_explained(step: str, option: str) -> None:
    steps = README[README.index("### Steps") : README.index("## What a client sees")]
    part = steps[steps.index(f"**`{step}`**") :]
    end = part.find("\n**`", 1)
    assert f"`{option}" in (part if end == -1 else part[:end])


def aliases(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


@pytest.mark.parametrize("option", aliases(PolicyOptions))
def test_every_member_of_a_policy_is_explained(option: str) -> None:
    assert f"`{option}`" in README[README.index("| policy | meaning") : README.index("## What a client sees")]


@pytest.mark.parametrize("option", aliases(ModelOptions))
def test_every_option_of_counting_is_explained(option: str) -> None:
    section = README[README.index("### Counting") : README.index("## What a client sees")]
    assert f"`{option}`" in section
    assert f"{option}:" in section  # in the example


@pytest.mark.parametrize("variable", [variable for variable, *_ in described()])
def test_every_setting_is_in_the_table(variable: str) -> None:
    table = README[README.index("## Settings") : README.index("## Metrics and logs")]
    assert f"`{variable}`" in table


def test_the_table_names_no_setting_that_is_not_there() -> None:
    table = README[README.index("## Settings") : README.index("## Metrics and logs")]
    named = set(re.findall(r"`(WEIR_[A-Z_]+|REDIS_URL|UPSTREAM_URL|OPENAI_API_KEY)`", table))
    assert named - {variable for variable, *_ in described()} == {"WEIR_VAR_NAME"}


@pytest.mark.parametrize("family", [*metrics.COUNTERS, *metrics.HISTOGRAMS, *metrics.GAUGES])
def test_every_metric_is_named(family: metrics.Family) -> None:
    assert f"`{family.name}" in README


@pytest.mark.parametrize("name", [*scripts.NAMES, "account"])
def test_every_script_is_explained_beside_it(name: str) -> None:
    assert f"{name}" in (ROOT / "lua" / "README.md").read_text()


def read(document: object) -> Api:
    return parse(
        yaml.safe_dump(document, sort_keys=False),
        file="README.md",
        variables={"UPSTREAM_URL": "http://model.test/v1"},
        steps=interceptors.options(),
        phases=interceptors.phases(),
    )


def test_the_definition_in_the_readme_is_one() -> None:
    block = re.search(r"```yaml\n(x-weir:.*?)```", README, re.DOTALL)
    assert block
    document = yaml.safe_load(default_definition().read_text())
    document["x-weir"] = yaml.safe_load(block[1])["x-weir"]
    assert [step.name for step in read(document).request] == [
        "header",
        "log",
        "json-schema-validation",
        "rate-limit-ai-tokens",
    ]


def test_what_the_readme_says_of_counting_may_stand_in_a_definition() -> None:
    example = re.search(r"`(\{.*like: .*?\}\})`", README)
    assert example
    document = yaml.safe_load(default_definition().read_text())
    document["x-weir"] |= {"counting": yaml.safe_load(example[1])}
    assert list(read(document).counting) == list(document["x-weir"]["counting"])


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"make (\w+)", README)) - {"no"}
    makefile = (ROOT / "Makefile").read_text()
    assert targets
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


@pytest.mark.parametrize("readme", [*sorted(ROOT.glob("*/README.md")), ROOT / "README.md"], ids=str)
def test_every_link_leads_somewhere(readme: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", readme.read_text())
    assert [link for link in links if not (readme.parent / link).exists()] == []


def test_the_door_is_no_warehouse() -> None:
    assert len(README.splitlines()) <= 350
