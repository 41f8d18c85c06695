"""Marks: a YAML document as plain values that remembers where everything stands, and what is wrong with it.

The document is YAML as far as JSON goes: names are strings, no name comes twice, nothing is an alias
of something else. So every value has one place, and no small file becomes a large one.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import yaml

from service.domain.json_text import MAX_DEPTH

Path = tuple[str | int, ...]

_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset(_TAG + name for name in ("int", "float", "bool", "null"))
_TEXTS = frozenset(_TAG + name for name in ("str", "timestamp"))  # a date is read by who expects one


class Document:
    """A YAML text, read once: its value, the place of each part, and the faults found so far."""

    def __init__(self, text: str, *, file: str) -> None:
        self._file = file
        self._faults: list[tuple[int, int, str]] = []
        self._loader = yaml.SafeLoader("")
        self._unreadable: set[Path] = set()
        self._faulty: set[Path] = set()
        self._root = self._compose(text)
        self._value: Any = None

    def errors(self) -> list[str]:
        """Every fault so far as `file:line:column: path: what was expected`, in the order of the text."""
        return [f"{self._file}:{line}:{column}: {what}" for line, column, what in sorted(set(self._faults))]

    def fault(self, path: Path, message: str, *, missing: str = "", at_name: bool = False) -> None:
        """Note that what stands at `path` is wrong.

        Parts of the path that the text does not have are left out. `missing` is a member that should
        be there; `at_name` points at the member's name instead of its value.
        """
        self._faulty.add((*path, missing) if missing else path)
        node, name, found = self._find(path)
        mark = (name if at_name and name else node).start_mark if node else None
        self._note(mark, message, (*found, missing) if missing else found)

    def fill(self, path: Path, variables: Mapping[str, str]) -> None:
        """Replace each ${NAME} in the strings at `path`; a name that nobody defined is a fault.

        Where the text has no quotes, the result is read as YAML reads it: `${LIMIT}` may be a number.
        """
        node, _, found = self._find(path)
        self._value = None
        if found == path:
            for at, scalar in _scalars(node, path):
                for name in _VARIABLE.findall(scalar.value):
                    if name not in variables:
                        self._unread(at, f"expected a defined variable, not {name}{near(name, variables)}")
                self._fill(scalar, variables)

    def value(self, path: Path = ()) -> Any:
        """What stands at `path` as dicts, lists and scalars; None where nothing does, or nothing readable."""
        if self._value is None and self._root:
            self._value = self._plain(self._root, ())
        value = self._value
        for part in path:
            try:
                value = value[part]
            except (LookupError, TypeError):
                return None
        return value

    def has(self, path: Path) -> bool:
        """Whether anything stands at `path`."""
        return self._root is not None and self._find(path)[2] == path

    def is_readable(self, path: Path = ()) -> bool:
        """Whether no fault was found yet in what YAML has at `path` itself."""
        return self._root is not None and path not in self._unreadable

    def is_faulty(self, path: Path) -> bool:
        """Whether a fault was noted of what stands, or should stand, at just this path."""
        return path in self._faulty

    def _compose(self, text: str) -> yaml.Node | None:
        try:
            self._check_events(yaml.parse(text))
            node: yaml.Node | None = None if self._faults else yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            self._note(error.problem_mark, f"expected YAML: {error.problem}")
            return None
        except yaml.YAMLError as error:
            self._note(None, f"expected YAML: {str(error).splitlines()[0]}")
            return None
        if node is None and not self._faults:
            self._note(None, "expected a document, but there is none")
        return node

    def _check_events(self, events: Iterable[yaml.Event]) -> None:
        depth = 0
        for event in events:
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                self._note(event.start_mark, f"expected a value written out, not the alias *{event.anchor}")
            if depth > MAX_DEPTH:
                self._note(event.start_mark, f"expected nesting of no more than {MAX_DEPTH} levels")
                return

    def _unread(self, path: Path, message: str) -> None:
        self._unreadable.add(path)
        self.fault(path, message)

    def _note(self, mark: Any, message: str, path: Path = ()) -> None:
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        self._faults.append((line, column, f"{dotted(path)}: {message}" if path else message))

    def _find(self, path: Path) -> tuple[yaml.Node | None, yaml.Node | None, Path]:
        """The deepest node of the path that is there, the node of its name, and its own path."""
        node, name = self._root, None
        found: Path = ()
        for part in path:
            for child_name, key, child in _children(node):
                if key == part:
                    node, name, found = child, child_name, (*found, part)
                    break
        return node, name, found

    def _fill(self, scalar: yaml.ScalarNode, variables: Mapping[str, str]) -> None:
        text = _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), scalar.value)
        if text != scalar.value and scalar.style is None:
            scalar.tag = self._loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        scalar.value = text

    def _plain(self, node: yaml.Node, path: Path) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, child in node.value:
            if key.tag != _TAG + "str":
                self._note(key.start_mark, "expected a name that is a string: quote it", path)
            elif key.value in members:
                self._note(
                    key.start_mark, f"{dotted((*path, key.value))}: expected once, but it is there twice"
                )
            else:
                members[key.value] = self._plain(child, (*path, key.value))
        return members

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        if node.tag in _TEXTS:
            return node.value
        if node.tag in _SCALARS:
            try:
                value = self._loader.construct_object(node)
            except ValueError:
                value = math.nan
            if not isinstance(value, float) or math.isfinite(value):
                return value
        self._unread(path, "expected what JSON can say: a string, a finite number, a boolean or null")
        return None


def dotted(path: Path) -> str:
    """A path as people write it: `flows.request[0].header`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def near(word: str, known: Iterable[str]) -> str:
    """` (did you mean "…"?)` with the nearest known word, nothing where none is near."""
    matches = get_close_matches(word, sorted(known), n=1)
    return f' (did you mean "{matches[0]}"?)' if matches else ""


def _children(node: yaml.Node | None) -> Iterator[tuple[yaml.Node | None, str | int, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for name, child in node.value:
            if isinstance(name, yaml.ScalarNode):
                yield name, name.value, child
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield None, index, child


def _scalars(node: yaml.Node | None, path: Path) -> Iterator[tuple[Path, yaml.ScalarNode]]:
    if isinstance(node, yaml.ScalarNode):
        yield path, node
    for _, key, child in _children(node):
        yield from _scalars(child, (*path, key))
