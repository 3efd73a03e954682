"""YAML text -> plain values with the line of each, under limits (A30, A31). No tag makes an object, ever.

The parser's events are read one by one, so a limit stops the parsing itself and not what comes after it. YAML is 1.2
whatever the file says; tags, merge keys, duplicate keys and directives that change the meaning are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from tatin_jobs.spec.problems import FieldError, Path, Problem, shown
from tatin_jobs.spec.scalars import Scalar, plain_value

MAX_DOCUMENTS = 1_000
MAX_NODES = 200_000
"""In one file; 1,000 jobs of 200 values each."""
MAX_DEPTH = 50
MAX_KEYS = 1_000
"""In one mapping."""
MAX_ALIASES = 200
"""In one document."""
MAX_EXPANDED_NODES = 20_000
"""In one document, each alias counted as all that it stands for."""
MAX_EXPANDED_CHARACTERS = 8 * 2**20
"""As above: 200 aliases of one long text are refused too."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the line it begins on. ``size`` and ``characters`` count it with all below it."""

    data: Scalar | list[Node] | dict[str, Entry]
    line: int
    size: int = 1
    characters: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A value in a mapping; ``line`` is that of its key."""

    line: int
    node: Node


@dataclass
class Document:
    """One document: its value, and the line of each value in it by its path.

    A line that is text names an override (``--set key``). ``templates``: texts as they were before variables were
    filled in. ``broken``: values that were complained of already, and are not what the user wrote. ``sound`` is False
    when fields may have been lost, so that their absence says nothing.
    """

    value: Any
    line: int
    lines: dict[Path, int | str] = field(default_factory=dict)
    templates: dict[Path, str] = field(default_factory=dict)
    broken: set[Path] = field(default_factory=set)
    sound: bool = True

    def line_of(self, path: Path) -> int | str:
        """The line of the value at ``path``, or of the nearest thing that holds it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return self.line


def read_documents(text: str) -> tuple[list[Document], list[Problem]]:
    """The documents of a file but the empty ones, and everything that is wrong with the YAML itself.

    What cannot be read ends the reading; the documents before it are there.
    """
    reader = _Reader(text)
    try:
        reader.read()
    except _Stop as stop:
        reader.problems.append(stop.problem)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reader.problems.append(Problem((), f"holds the control character U+{error.character:04X}.", line=line))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"is not valid YAML: {shown(error.problem or error.context or 'it cannot be read')}."
        at = mark.line + 1 if mark else None
        reader.problems.append(Problem((), what, line=at, try_=_advice(error)))
    except (YAMLError, ValueError, OverflowError, RecursionError) as error:
        reader.problems.append(Problem((), f"is not valid YAML: {shown(error)}."))
    return reader.documents, reader.problems


class _Stop(Exception):
    """A limit was passed: nothing more of the file is read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def _stop(line: int, message: str, path: Path = ()) -> NoReturn:
    raise _Stop(Problem(path, message, line=line))


class _Reader:
    """Composes the nodes of one file from its events, and counts them."""

    def __init__(self, text: str) -> None:
        yaml = YAML(typ="safe", pure=True)
        self._events: Iterator[Any] = yaml.parse(text)
        self._nodes = 0
        self.documents: list[Document] = []
        self.problems: list[Problem] = []

    def read(self) -> None:
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                self._read_document(event)

    def next_event(self) -> Any:
        return next(self._events)

    def count_node(self, line: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            _stop(line, f"holds more than {MAX_NODES} values.")

    def _read_document(self, event: DocumentStartEvent) -> None:
        self._check_directives(event)
        document = Document(None, event.start_mark.line + 1)
        node = _Composer(self, document).compose(self.next_event(), (), 0)
        if node.data is None:
            return
        if len(self.documents) == MAX_DOCUMENTS:
            _stop(node.line, f"holds more than {MAX_DOCUMENTS} documents.")
        document.line = node.line
        document.value = _plain(node, (), document.lines)
        self.documents.append(document)

    def _check_directives(self, event: DocumentStartEvent) -> None:
        line = event.start_mark.line  # the mark is at `---`; the directives stand above it
        if event.version not in (None, (1, 2)):
            text = f"`%YAML {event.version[0]}.{event.version[1]}` is not accepted: job files are YAML 1.2."
            self.problems.append(Problem((), text, line=line, try_="remove the directive."))
        if event.tags:
            text = "`%TAG` is not accepted: job files have no tags."
            self.problems.append(Problem((), text, line=line, try_="remove the directive."))


class _Composer:
    """Composes one document."""

    def __init__(self, reader: _Reader, document: Document) -> None:
        self._reader = reader
        self._document = document
        self._anchors: dict[str, Node | None] = {}
        self._aliases = 0

    def compose(self, event: Any, path: Path, depth: int) -> Node:
        line = event.start_mark.line + 1
        self._reader.count_node(line)
        if depth > MAX_DEPTH:
            _stop(line, f"is nested deeper than {MAX_DEPTH} levels.")
        if isinstance(event, AliasEvent):
            return self._alias(event, path, line)
        if event.tag is not None:
            self._refuse(path, line, "is a tag, and tags are not accepted.", shown(event.tag), "remove the tag.")
        if event.anchor is not None:
            self._anchors[event.anchor] = None  # named but not whole: an alias inside it refers to itself
        node = self._node(event, path, line, depth)
        if node.size > MAX_EXPANDED_NODES or node.characters > MAX_EXPANDED_CHARACTERS:
            _stop(line, "is too large once its aliases are replaced.", path)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _node(self, event: Any, path: Path, line: int, depth: int) -> Node:
        if isinstance(event, SequenceStartEvent):
            return self._sequence(path, line, depth)
        if isinstance(event, MappingStartEvent):
            return self._mapping(path, line, depth)
        return self._scalar(event, path, line)

    def _scalar(self, event: ScalarEvent, path: Path, line: int) -> Node:
        text = str(event.value)
        if problem := text_problem(text):
            self._refuse(path, line, problem)
            return self._broken(path, line)
        # Only what has no quotes and no tag can be anything but text.
        if event.style is not None or event.tag is not None:
            return Node(text, line, characters=len(text))
        try:
            return Node(plain_value(text), line, characters=len(text))
        except FieldError as error:
            self._refuse(path, line, error.message, shown(text), error.try_)
            return self._broken(path, line)

    def _sequence(self, path: Path, line: int, depth: int) -> Node:
        nodes: list[Node] = []
        while not isinstance(event := self._reader.next_event(), SequenceEndEvent):
            nodes.append(self.compose(event, (*path, len(nodes)), depth + 1))
        return Node(nodes, line, 1 + sum(n.size for n in nodes), sum(n.characters for n in nodes))

    def _mapping(self, path: Path, line: int, depth: int) -> Node:
        entries: dict[str, Entry] = {}
        while not isinstance(event := self._reader.next_event(), MappingEndEvent):
            key_line = event.start_mark.line + 1
            key = self._key(event, path, key_line, depth)
            value_path = path if key is None else (*path, key)
            node = self.compose(self._reader.next_event(), value_path, depth + 1)
            if key is None:
                continue
            if key in entries:
                what = f"stands on line {entries[key].line} already."
                self._refuse(value_path, key_line, what, try_="remove one of the two.")
            elif len(entries) == MAX_KEYS:
                _stop(key_line, f"has more than {MAX_KEYS} keys in one mapping.", path)
            else:
                entries[key] = Entry(key_line, node)
        size = 1 + sum(1 + entry.node.size for entry in entries.values())
        characters = sum(len(key) + entry.node.characters for key, entry in entries.items())
        return Node(entries, line, size, characters)

    def _key(self, event: Any, path: Path, line: int, depth: int) -> str | None:
        """The key, or None when it is none that a job file can have."""
        node = self.compose(event, path, depth + 1)
        if not isinstance(event, ScalarEvent) or not isinstance(node.data, (str, int, float, bool, type(None))):
            self._document.sound = False
            self._refuse(path, line, "has a key that is not plain text.", try_="write `key: value`.")
            return None
        if event.value == "<<" and event.style is None:
            text = "has a merge key (`<<`), which is not part of YAML 1.2."
            self._document.sound = False
            self._refuse(path, line, text, try_="write the fields out, or use `--set` for what differs.")
            return None
        return str(event.value)

    def _alias(self, event: AliasEvent, path: Path, line: int) -> Node:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            _stop(line, f"has more than {MAX_ALIASES} aliases in one document.")
        name = str(event.anchor)
        node = self._anchors.get(name)
        if node is None:
            known = name in self._anchors
            what = f"`*{shown(name)}` refers to itself." if known else f"`*{shown(name)}` refers to no anchor above it."
            self._refuse(path, line, what)
            return self._broken(path, line)
        return node

    def _broken(self, path: Path, line: int) -> Node:
        self._document.broken.add(path)
        return Node("", line)

    def _refuse(self, path: Path, line: int, message: str, value: object = None, try_: str | None = None) -> None:
        self._reader.problems.append(Problem(path, message, value, try_, line))


def text_problem(text: str) -> str | None:
    """Why a text can be in no field at all."""
    if "\0" in text:
        return "holds a NUL character."
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which is not a character."
    return None


def _plain(node: Node, path: Path, lines: dict[Path, int | str]) -> Any:
    if isinstance(node.data, list):
        for index, item in enumerate(node.data):
            lines[*path, index] = item.line
        return [_plain(item, (*path, index), lines) for index, item in enumerate(node.data)]
    if isinstance(node.data, dict):
        for key, entry in node.data.items():
            lines[*path, key] = entry.line
        return {key: _plain(entry.node, (*path, key), lines) for key, entry in node.data.items()}
    return node.data


def _advice(error: MarkedYAMLError) -> str | None:
    problem = str(error.problem)
    if "'\\t'" in problem:
        return "indent with spaces; YAML takes no tabs there."
    if "mapping values are not allowed" in problem:
        return "put a value that holds `: ` in quotes, and check the indentation."
    return None
