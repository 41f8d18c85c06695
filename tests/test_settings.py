"""Settings: each from the environment and by flag, and all that is wrong with them said at once."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from service.domain.address import proxies
from service.settings import Settings, SettingsError, add_flags, described, load

GIVEN: dict[str, tuple[str, Any]] = {  # what each setting may be given, and how it is read
    "WEIR_HOST": ("0.0.0.0", "0.0.0.0"),
    "WEIR_PORT": ("0", 0),
    "WEIR_OPS_HOST": ("::1", "::1"),
    "WEIR_OPS_PORT": ("65535", 65535),
    "WEIR_WORKERS": ("128", 128),
    "WEIR_DEFINITION": (__file__, Path(__file__)),
    "WEIR_KEYS_FILE": (__file__, Path(__file__)),
    "REDIS_URL": ("rediss://me:secret@redis.example:6380/2", "rediss://me:secret@redis.example:6380/2"),
    "UPSTREAM_URL": ("http://models.example:8000/v1", "http://models.example:8000/v1"),
    "OPENAI_API_KEY": ("sk-abcdefghijklmnop", "sk-abcdefghijklmnop"),
    "WEIR_DIGEST_KEY": ("0123456789abcdef", "0123456789abcdef"),
    "WEIR_TRUSTED_PROXIES": ("10.0.0.0/8, ::1", proxies("10.0.0.0/8,::1")),
    "WEIR_UPSTREAM_CONNECTIONS": ("1", 1),
    "WEIR_COUNTING_THREADS": ("64", 64),
    "WEIR_LEASE": ("100ms", 0.1),
    "WEIR_LEDGER_DEADLINE": ("1.5s", 1.5),
    "WEIR_DRAIN": ("0s", 0.0),
    "WEIR_GRACE": ("2m", 120.0),
    "WEIR_LOG_LEVEL": ("error", "error"),
    "WEIR_METRIC_MODELS": ("gpt-4o, my-own,", ("gpt-4o", "my-own")),
    "WEIR_METRIC_USERS": ("ada,bob", ("ada", "bob")),
    "WEIR_EXCHANGES": ("0", 0),
}
WRONG = {
    "WEIR_PORT": ("65536", "a whole number from 0 to 65535, not '65536'"),
    "WEIR_OPS_PORT": ("-1", "a whole number from 0 to 65535, not '-1'"),
    "WEIR_WORKERS": ("0", "a whole number from 1 to 128, not '0'"),
    "WEIR_UPSTREAM_CONNECTIONS": ("many", "a whole number from 1 to 65535, not 'many'"),
    "WEIR_TRUSTED_PROXIES": (
        "10.0.0.1/8",
        "addresses and networks such as 10.0.0.0/8, with commas between, not '10.0.0.1/8'",
    ),
    "WEIR_DEFINITION": ("/nowhere", "a file that is there, not '/nowhere'"),
    "WEIR_KEYS_FILE": ("/", "a file that is there, not '/'"),
    "REDIS_URL": (
        "http://me:secret@redis",
        "an address beginning redis:// or rediss:// or unix:// or redis+cluster:// or rediss+cluster:// or"
        " redis+sentinel:// or rediss+sentinel://, not what was given",
    ),
    "UPSTREAM_URL": ("me:secret@models", "an address beginning http:// or https://, not what was given"),
    "OPENAI_API_KEY": ("sk-secret\n", "printable ASCII without line breaks, not what was given"),
    "WEIR_DIGEST_KEY": (
        "secret",
        "at least 16 characters; `openssl rand -hex 32` makes some, not what was given",
    ),
    "WEIR_COUNTING_THREADS": ("0", "a whole number from 1 to 64, not '0'"),
    "WEIR_LEASE": ("60", "a duration from 0.1s to 3600s, such as 250ms or 30s, not '60'"),
    "WEIR_LEDGER_DEADLINE": ("1ms", "a duration from 0.01s to 30s, such as 250ms or 30s, not '1ms'"),
    "WEIR_DRAIN": ("1h", "a duration from 0s to 600s, such as 250ms or 30s, not '1h'"),
    "WEIR_GRACE": ("-1s", "a duration from 0s to 3600s, such as 250ms or 30s, not '-1s'"),
    "WEIR_EXCHANGES": ("all", "a whole number from 0 to 1000000, not 'all'"),
    "WEIR_LOG_LEVEL": ("loud", "one of debug, info, warning, error, not 'loud'"),
}
FLAGS = {variable: flag for variable, flag, _, _ in described()}
DIGEST_KEY = "0123456789abcdef"


def value(settings: Settings, variable: str) -> object:
    return getattr(settings, variable.removeprefix("WEIR_").lower())


def by_flag(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return vars(parser.parse_args(words))


def errors(environment: dict[str, str], flags: dict[str, Any] | None = None, **kinds: bool) -> list[str]:
    with pytest.raises(SettingsError) as wrong:
        load(flags, environment, **kinds)
    assert "secret" not in str(wrong.value)
    return wrong.value.errors


def test_there_is_a_case_for_every_setting() -> None:
    assert set(GIVEN) == set(FLAGS)
    named = {"WEIR_HOST", "WEIR_OPS_HOST", "WEIR_METRIC_MODELS", "WEIR_METRIC_USERS"}
    assert set(WRONG) == set(FLAGS) - named  # with which nothing is wrong before it is used


@pytest.mark.parametrize("variable", GIVEN)
def test_a_setting_comes_from_the_environment(variable: str) -> None:
    text, read = GIVEN[variable]
    assert value(load({}, {variable: text}), variable) == read
    assert value(load({}, {variable: text}), variable) != value(load({}, {}), variable)


@pytest.mark.parametrize("variable", [name for name, flag in FLAGS.items() if flag])
def test_a_flag_goes_before_the_environment(variable: str) -> None:
    text, read = GIVEN[variable]
    flags = by_flag(FLAGS[variable], text)
    assert value(load(flags, {}), variable) == read
    assert value(load(flags, {variable: WRONG.get(variable, ("other", ""))[0]}), variable) == read


def test_secrets_have_no_flag_as_all_can_see_a_command_line() -> None:
    assert {name for name, flag in FLAGS.items() if not flag} == {"OPENAI_API_KEY", "WEIR_DIGEST_KEY"}


@pytest.mark.parametrize("variable", WRONG)
def test_what_a_setting_should_have_been_is_told(variable: str) -> None:
    text, expected = WRONG[variable]
    name = f"{variable} ({FLAGS[variable]})" if FLAGS[variable] else variable
    assert errors({variable: text}) == [f"{name}: expected {expected}"]
    if FLAGS[variable]:
        flags = by_flag(f"{FLAGS[variable]}={text}")
        assert errors({}, flags) == [f"{name}: expected {expected}"]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    wrong = {variable: text for variable, (text, _) in WRONG.items()}
    told = errors(wrong | {"WEIR_PROT": "8080"})
    assert len(told) == len(WRONG) + 1


@pytest.mark.parametrize("name", ["WEIR_PROT", "WEIR_OPENAI_API_KEY", "WEIR_VAR_lower", "WEIR_VAR_", "WEIR_"])
def test_a_name_of_weirs_that_nobody_knows_is_refused(name: str) -> None:
    assert errors({name: "secret"}) == [f"{name}: expected a setting of Weir's; there is none of that name"]


def test_an_empty_variable_is_none() -> None:
    assert load({}, dict.fromkeys(GIVEN, "")).port == 8080


@pytest.mark.parametrize(
    "url", ["redis://redis:port", "redis://redis:99999", "redis://[::1", "redis://", "unix://", "redis"]
)
def test_an_address_that_leads_nowhere_is_refused_when_the_settings_are_read(url: str) -> None:
    assert len(errors({"REDIS_URL": url})) == 1


@pytest.mark.parametrize("url", ["redis:///1", "unix:///run/redis.sock?db=1", "redis://[::1]:6379"])
def test_redis_has_addresses_of_many_kinds(url: str) -> None:
    assert load({}, {"REDIS_URL": url}).redis_url == url


def test_gateways_that_share_a_ledger_must_be_told_the_key_that_they_share() -> None:
    [error] = errors({"REDIS_URL": "redis://redis"}, to_serve=True)
    assert error.startswith("WEIR_DIGEST_KEY: expected with REDIS_URL")
    shared = {"REDIS_URL": "redis://redis", "WEIR_DIGEST_KEY": DIGEST_KEY}
    assert load({}, shared, to_serve=True).digest_key == DIGEST_KEY
    [error] = errors(shared | {"WEIR_DIGEST_KEY": "secret"}, to_serve=True)
    assert "at least 16 characters" in error


def test_who_does_not_serve_need_not_know_that_key() -> None:
    assert load({}, {"REDIS_URL": "redis://redis"}).redis_url == "redis://redis"


def test_a_gateway_by_itself_makes_its_own_digest_key() -> None:
    keys = {load({}, {}, to_serve=True).digest_key for _ in range(2)}
    assert len(keys) == 2
    assert all(key and len(key) == 64 for key in keys)


def test_a_definition_may_name_the_variables_of_its_environment_and_no_others() -> None:
    environment = {"WEIR_VAR_TEAM": "blue", "HOME": "/root", "UPSTREAM_URL": "http://models.example/v1"}
    variables = load({}, environment).definition_variables()
    assert variables == {"TEAM": "blue", "UPSTREAM_URL": "http://models.example/v1"}


def test_settings_do_not_show_secrets_when_they_are_printed() -> None:
    shown = repr(load({}, {variable: text for variable, (text, _) in GIVEN.items()}))
    for secret in ("sk-abcdefghijklmnop", DIGEST_KEY, "me:secret"):
        assert secret not in shown
