"""The exact received bytes of each resource in a FHIR Bundle or an NDJSON file.

Commitments are made over bytes as they came: parsing and writing again would turn 1.50 into 1.5, and the precision of
a measurement is part of what was recorded. So a small scanner finds where each resource begins and ends, and the
standard parser judges what lies between. One broken entry refuses the whole file (F-35: nothing is stored).
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code, Rejected

Resource: TypeAlias = Mapping[str, Any]
"""A parsed resource, for reading only. Decimal numbers are kept as their text."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """One resource: where it stood in the file, its exact bytes, and what they say."""

    index: int
    """Its entry in the bundle, or its line in the NDJSON file, from 0."""
    start: int
    end: int
    """The resource is `file[start:end]`, in bytes."""
    data: bytes
    resource: Resource = field(repr=False)
    full_url: str | None

    @property
    def resource_type(self) -> str:
        kind: str = self.resource["resourceType"]
        return kind


def extract_bundle(data: bytes) -> list[Extracted]:
    """The resources of a FHIR Bundle in order.

    Raises Rejected(E_FHIR_INVALID) naming the entry and the rule: not UTF-8, a byte order mark, not JSON, a key twice
    in one object, nested too deeply, too large, not a Bundle, no entries, an entry without a resource or a type.
    """
    text = _text_of(data, "bundle")
    scan = _BundleScan(text)
    end = _object(text, _skip(text, 0), scan.on_member, "bundle")
    if _skip(text, end) != len(text):
        _refuse("bundle", f"something follows the JSON object at character {end}")
    if scan.resource_type != "Bundle":
        _refuse("bundle", f"resourceType is {_shown(scan.resource_type)}, not 'Bundle'")
    if scan.entries is None:
        _refuse("bundle", "it has no entry array")
    if not scan.entries:
        _refuse("bundle", "its entry array is empty")
    return _located(text, scan.entries)


def extract_ndjson(data: bytes) -> list[Extracted]:
    """The resources of an NDJSON file, one a line; empty lines are passed over.

    Raises Rejected(E_FHIR_INVALID) naming the line, counted from 0, and the rule.
    """
    text = _text_of(data, "file")
    found: list[_Found] = []
    start = 0
    for number, line in enumerate(text.split("\n")):
        at = _skip(line, 0)
        if at < len(line):
            where = f"line {number}"
            value, end = _value(line, at, where)
            if _skip(line, end) != len(line):
                _refuse(where, "more than one JSON value")
            found.append(_found(number, start + at, start + end, value, where))
        start += len(line) + 1
    if not found:
        _refuse("file", "it holds no resource")
    return _located(text, found)


@dataclass(frozen=True, slots=True)
class _Found:
    index: int
    start: int
    """In characters, like `end`."""
    end: int
    resource: Resource
    full_url: str | None = None


class _BundleScan:
    """Walks the two outer levels of a bundle by hand, to know where each `resource` begins and ends."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.resource_type: Any = None
        self.entries: list[_Found] | None = None

    def on_member(self, key: str, at: int) -> int:
        if key != "entry":
            value, end = _value(self._text, at, "bundle")
            if key == "resourceType":
                self.resource_type = value
            return end
        if self._text[at : at + 1] != "[":
            _refuse("bundle", "entry is not an array")
        self.entries = []
        return _array(self._text, at, self._on_entry, "bundle")

    def _on_entry(self, index: int, at: int) -> int:
        assert self.entries is not None
        where = f"entry {index}"
        if index >= limits.FHIR_ENTRIES_MAX:
            _refuse(where, f"more than {limits.FHIR_ENTRIES_MAX} entries")
        if self._text[at : at + 1] != "{":
            _refuse(where, "it is not an object")
        spans: dict[str, tuple[Any, int, int]] = {}

        def on_member(key: str, start: int) -> int:
            value, end = _value(self._text, start, where)
            spans[key] = (value, start, end)
            return end

        end = _object(self._text, at, on_member, where)
        if "resource" not in spans:
            _refuse(where, "it has no resource")
        _check_request(spans["request"][0] if "request" in spans else None, where)
        full_url = spans["fullUrl"][0] if "fullUrl" in spans else None
        if full_url is not None and not isinstance(full_url, str):
            _refuse(where, "fullUrl is not a string")
        resource, first, last = spans["resource"]
        self.entries.append(_found(index, first, last, resource, where, full_url))
        return end


def _check_request(request: Any, where: str) -> None:
    method = request.get("method") if isinstance(request, dict) else None
    if method not in (None, "POST", "PUT"):
        _refuse(where, f"request.method {_shown(method)} does not bring a record")


def _found(index: int, start: int, end: int, resource: Any, where: str, full_url: str | None = None) -> _Found:
    if not isinstance(resource, dict):
        _refuse(where, "its resource is not an object")
    kind = resource.get("resourceType")
    if not isinstance(kind, str) or not re.fullmatch(r"[A-Za-z]{1,64}", kind):
        _refuse(where, f"its resource has no resourceType: {_shown(kind)} is none")
    return _Found(index, start, end, resource, full_url)


def _located(text: str, found: Iterable[_Found]) -> list[Extracted]:
    """Characters to bytes, in one pass: UTF-8 that was decoded strictly encodes to the same bytes again."""
    located = []
    character = byte = 0
    for item in found:
        byte += len(text[character : item.start].encode())
        data = text[item.start : item.end].encode()
        if len(data) > limits.FHIR_RESOURCE_BYTES_MAX:
            _refuse(
                f"entry {item.index}", f"resource of {len(data)} bytes, the limit is {limits.FHIR_RESOURCE_BYTES_MAX}"
            )
        located.append(Extracted(item.index, byte, byte + len(data), data, item.resource, item.full_url))
        character, byte = item.end, byte + len(data)
    return located


# The scanner: JSON's whitespace, strings, objects and arrays; everything inside a member is left to the parser.

SHOWN_LENGTH_MAX = 6
"""F-29 is about strings longer than this."""
_WORDS = frozenset({"Bundle", "Patient", "resource", "resourceType", "fullUrl", "request"})
_WHITESPACE = re.compile(r"[ \t\n\r]*")
_NESTING = re.compile(r'"(?:[^"\\]++|\\.)*+["\\]?|[\[\]{}]', re.DOTALL)
"""A whole string or one bracket. An unterminated string matches to the end, so that the pass stays linear."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _text_of(data: bytes, what: str) -> str:
    if len(data) > limits.FHIR_FILE_BYTES_MAX:
        _refuse(what, f"{len(data)} bytes, the limit is {limits.FHIR_FILE_BYTES_MAX}")
    if data.startswith(b"\xef\xbb\xbf"):
        _refuse(what, "it begins with a byte order mark")
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        _refuse(what, f"byte {error.start} is not UTF-8")
    _check_depth(text, what)
    return text


def _check_depth(text: str, what: str) -> None:
    depth = 0
    for match in _NESTING.finditer(text):
        first = text[match.start()]
        if first in "[{":
            depth += 1
            if depth > limits.FHIR_DEPTH_MAX + 3:  # the bundle, its entry array and the entry lie around a resource
                _refuse(what, f"nested deeper than {limits.FHIR_DEPTH_MAX} levels at character {match.start()}")
        elif first in "]}":
            depth -= 1


def _skip(text: str, at: int) -> int:
    match = _WHITESPACE.match(text, at)
    assert match is not None, "the pattern matches nothing at all as well"
    return match.end()


def _object(text: str, at: int, on_member: Callable[[str, int], int], where: str) -> int:
    """Calls `on_member(key, start of value)`, which answers the value's end; returns the end of the object."""
    if text[at : at + 1] != "{":
        _refuse(where, f"it is not a JSON object (character {at})")
    seen: set[str] = set()
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return at + 1
    while True:
        if text[at : at + 1] != '"':
            _refuse(where, f"a key is missing at character {at}")
        key, at = _value(text, at, where)
        if key in seen:
            _refuse(where, f"key {_shown(key)} stands twice in one object")
        seen.add(key)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            _refuse(where, f"a colon is missing at character {at}")
        at = _skip(text, on_member(key, _skip(text, at + 1)))
        if text[at : at + 1] == "}":
            return at + 1
        if text[at : at + 1] != ",":
            _refuse(where, f"a comma is missing at character {at}")
        at = _skip(text, at + 1)


def _array(text: str, at: int, on_item: Callable[[int, int], int], where: str) -> int:
    """Calls `on_item(index, start)`, which answers the item's end; returns the end of the array."""
    at = _skip(text, at + 1)
    if text[at : at + 1] == "]":
        return at + 1
    index = 0
    while True:
        at = _skip(text, on_item(index, at))
        if text[at : at + 1] == "]":
            return at + 1
        if text[at : at + 1] != ",":
            _refuse(where, f"a comma is missing at character {at}, after item {index}")
        at = _skip(text, at + 1)
        index += 1


def _value(text: str, at: int, where: str) -> tuple[Any, int]:
    try:
        value, end = _DECODER.raw_decode(text, at)
    except ValueError as error:
        _refuse(where, f"not valid JSON: {error}")
    if _SURROGATE.search(text, at, end) and not _is_unicode(value):
        _refuse(where, "an escape stands for half a character")
    return value, end


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _members_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {_shown(key)} stands twice in one object")
            seen.add(key)
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_members_once, parse_float=str, parse_constant=_no_constant)


def _shown(value: object) -> str:
    """A value for an error text: F-29, what may be a person's is described and not repeated."""
    if isinstance(value, str):
        is_harmless = len(value) <= SHOWN_LENGTH_MAX or value in _WORDS
        return ascii(value) if is_harmless else f"a text of {len(value)} characters"
    return ascii(value)[:SHOWN_LENGTH_MAX] if isinstance(value, int | None) else f"a JSON {type(value).__name__}"


def _refuse(where: str, rule: str) -> NoReturn:
    raise Rejected(Code.E_FHIR_INVALID, f"{where}: {rule}")
