"""json-schema-validation: refuses a chat request that the definition's own schema does not accept."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import fastjsonschema
from pydantic import BaseModel

from service.domain.errors import InvalidRequest
from service.domain.exchange import Exchange
from service.domain.misfits import misfit
from service.domain.schema import Check, Cutter
from service.interceptors import Tools


class Options(BaseModel, extra="forbid", frozen=True):
    """`status`: what to answer where a request is refused; 417 for platforms that expect it."""

    status: Literal[400, 417] = 400


class JsonSchemaValidation:
    """Checks the body of a chat request. Compiles the schema once, when it is built.

    Raises ValueError, when it is built, for a schema that cannot be compiled.
    """

    def __init__(self, options: Options, tools: Tools) -> None:
        self._status = options.status
        self._threads = tools.threads
        schema = tools.api.request_schema
        root = {key: value for key, value in schema.items() if key != "components"}
        self._validator = Cutter(schema, _judge).validator(root)

    async def on_request(self, exchange: Exchange) -> None:
        """Refuse what the schema does not accept, with the path of the first misfit as `param`."""
        if exchange.chat is None:
            return
        check = partial(self._validator.check, exchange.chat.document)
        if refusal := await self._threads.read(check, len(exchange.body)):
            refusal.status = self._status
            raise refusal


def _judge(schema: Mapping[str, Any]) -> Check:
    """A check by generated code; formats and defaults are annotations here, nothing is filled in."""
    try:
        accept = fastjsonschema.compile(dict(schema), use_default=False, use_formats=False)
    except fastjsonschema.JsonSchemaDefinitionException as error:
        raise ValueError(f"not a JSON Schema of draft 7: {error}") from error

    def check(value: Any, path: str) -> InvalidRequest | None:
        try:
            accept(value)
        except fastjsonschema.JsonSchemaValueException as error:
            where = path + (error.name or "").removeprefix("data")
            return misfit(where, error.value, error.rule or "", error.definition or {})
        return None

    return check
