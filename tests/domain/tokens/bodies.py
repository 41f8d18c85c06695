"""Bodies of requests as clients send them, one for each thing that a request may hold."""

import json
from typing import Any

_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
_ADDRESS = {
    "type": "object",
    "title": "Address",
    "properties": {"street": {"type": "string"}, "next": {"$ref": "#/$defs/Address"}},
    "required": ["street"],
}
_PARAMETERS = {
    "type": "object",
    "$defs": {"Address": _ADDRESS},
    "properties": {
        "gate": {"type": "string", "enum": ["north", "south"], "description": "Which one.\nOf two."},
        "metres": {"type": ["number", "null"], "default": 0.5},
        "at": {"$ref": "#/$defs/Address"},
        "names": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
        "more": {"type": "object", "properties": {"deep": {"type": "array", "items": {"type": "integer"}}}},
    },
    "required": ["gate"],
}
_FUNCTION = {"name": "open_gate", "description": "Opens a gate of the weir.", "parameters": _PARAMETERS}
_TOOL = {"type": "function", "function": _FUNCTION}
_QUESTION = {"role": "user", "content": "How high does the water stand? Wie hoch? 水はどのくらい? 🌊"}


def _call(id: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "open_gate", "arguments": arguments}}


def _answer(id: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


_DOCUMENTS: tuple[dict[str, Any], ...] = (
    {"messages": [_QUESTION]},
    {
        "messages": [
            {"role": "developer", "content": "You keep the weir.", "name": "house"},
            {
                "role": "system",
                "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "short."}],
            },
            _QUESTION | {"name": "Anna"},
            {"role": "assistant", "content": None, "refusal": "I do not say."},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        ],
        "temperature": 0.5,
        "n": 2,
    },
    {"messages": [_QUESTION], "tools": [_TOOL], "tool_choice": "auto", "parallel_tool_calls": True},
    {
        "messages": [{"role": "system", "content": "You keep the weir."}, _QUESTION],
        "tools": [_TOOL, {"type": "function", "function": {"name": "close_gates"}}],
        "tool_choice": {"type": "function", "function": {"name": "open_gate"}},
    },
    {
        "messages": [
            _QUESTION,
            {"role": "assistant", "tool_calls": [_call("call-1", '{"gate": "north", "metres": 1e3}')]},
            _answer("call-1", "It is open."),
        ],
        "tools": [_TOOL],
    },
    {
        "messages": [
            _QUESTION,
            {
                "role": "assistant",
                "tool_calls": [_call("call-1", '{"gate": "north"}'), _call("call-2", "no JSON")],
            },
            _answer("call-1", '{"open": true, "names": ["é"]}'),
            _answer("call-2", [{"type": "text", "text": "It is stuck."}]),
        ]
    },
    {
        "messages": [
            _QUESTION,
            {"role": "assistant", "content": None, "function_call": {"name": "open_gate", "arguments": "{}"}},
            {"role": "function", "name": "open_gate", "content": "It is open."},
        ],
        "functions": [_FUNCTION],
        "function_call": {"name": "open_gate"},
    },
    {
        "messages": [_QUESTION],
        "tools": [
            {
                "type": "custom",
                "custom": {
                    "name": "valve",
                    "description": "Turns a valve.",
                    "format": {"type": "grammar", "grammar": {"definition": "start: WORD", "syntax": "lark"}},
                },
            }
        ],
    },
    {
        "messages": [_QUESTION],
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "level",
                "description": "Of the water.",
                "schema": _PARAMETERS,
                "strict": True,
            },
        },
    },
    {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": _PIXEL, "detail": "high"}},
                    {"type": "image_url", "image_url": {"url": "https://pictures.test/weir.png"}},
                    {"type": "input_audio", "input_audio": {"data": "UklGRiQAAABXQVZF", "format": "wav"}},
                    {
                        "type": "file",
                        "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a"},
                    },
                    {"type": "file", "file": {"file_id": "file-1"}},
                ],
            },
            {"role": "assistant", "audio": {"id": "audio-1"}},
        ]
    },
    {
        "messages": [_QUESTION, _QUESTION],
        "stream": True,
        "stream_options": {"include_usage": True},
        "prediction": {"type": "content", "content": "It stands high."},
        "metadata": {"weir": "north"},
        "logit_bias": {"50256": -100},
        "stop": ["\n", "END"],
    },
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "def f(x):\n    return x\n" * 5}]}
        ],
        "max_completion_tokens": 100,
        "reasoning_effort": "low",
        "user": "anna",
    },
)

BODIES = tuple(
    json.dumps({"model": "gpt-4o", **document}, ensure_ascii=False).encode() for document in _DOCUMENTS
)
