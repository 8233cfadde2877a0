"""F-35, F-36: the exact received bytes of each resource; a bad file is refused with the entry and the rule."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pledger.fhir.spans import extract_bundle, extract_ndjson
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code, Rejected
from tests.unit.fhir.samples import BULK_KINDS, PATIENTS, bundle, ndjson

CRAFTED = (
    b' {"resource": {"resourceType":"Decoy"}, "entry" :[ {"fullUrl":"urn:uuid:1",\n'
    b'"resource" : {"resourceType": "Observation", "valueQuantity": {"value": 1.50},\n'
    b'   "note": [{"text": "\\u00e9 \xc3\xa9 \\"resource\\": {"}], "contained":[{"resource": {"x": 1e2}}] } },\n'
    b'{"resource":{"resourceType":"Patient","id":"\xf0\x9f\x98\x80\\ud83d\\ude00"}}\t], "resourceType":"Bundle"}\r\n'
)


def test_spans_are_the_received_bytes_and_not_a_re_serialisation() -> None:
    """1.50 stays 1.50, escapes stay escapes, spaces stay; nested keys named `resource` do not confuse."""
    first, second = extract_bundle(CRAFTED)
    assert first.data == CRAFTED[first.start : first.end]
    assert first.data.startswith(b'{"resourceType": "Observation"') and first.data.endswith(b"}] }")
    assert b"1.50" in first.data and b"\\u00e9 \xc3\xa9" in first.data
    assert json.dumps(json.loads(first.data)).encode() != first.data
    assert second.data == b'{"resourceType":"Patient","id":"\xf0\x9f\x98\x80\\ud83d\\ude00"}'
    assert (first.index, first.full_url, second.full_url) == (0, "urn:uuid:1", None)


@pytest.mark.parametrize("name", [*PATIENTS, "hospitalInformation", "practitionerInformation"])
def test_every_resource_of_every_sample_bundle_is_found(name: str) -> None:
    """The spans parse to exactly what parsing the whole bundle finds."""
    data = bundle(name)
    expected = [entry["resource"] for entry in json.loads(data)["entry"]]
    found = extract_bundle(data)
    assert [json.loads(data[item.start : item.end]) for item in found] == expected
    assert all(item.data == data[item.start : item.end] for item in found)


@pytest.mark.parametrize("kind", BULK_KINDS)
def test_every_line_of_every_sample_file_is_found(kind: str) -> None:
    data = ndjson(kind)
    assert [item.data for item in extract_ndjson(data)] == data.splitlines()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(_JSON, min_size=1, max_size=4), st.sampled_from([None, 1, "\t"]), st.booleans(), _JSON)
def test_spans_agree_with_the_parser(
    contents: list[object], indent: int | str | None, ascii_: bool, rest: object
) -> None:
    """Whatever a resource holds and however it is written, its span parses to it."""
    resources = [{"resourceType": "Basic", "content": content} for content in contents]
    document = {"x": rest, "resourceType": "Bundle", "entry": [{"y": rest, "resource": r} for r in resources]}
    data = json.dumps(document, indent=indent, ensure_ascii=ascii_).encode()
    found = extract_bundle(data)
    assert [json.loads(item.data) for item in found] == resources
    assert all(item.data == data[item.start : item.end] for item in found)
    lines = b"\r\n".join(json.dumps(r, ensure_ascii=ascii_).encode() for r in resources)
    assert [json.loads(item.data) for item in extract_ndjson(lines)] == resources


_GOOD = '{"resource":{"resourceType":"Basic"}}'


def _bundle(*entries: str) -> bytes:
    return ('{"resourceType":"Bundle","entry":[' + ",".join(entries) + "]}").encode()


_DEEP = '{"resource":{"resourceType":"Basic","x":' + "[" * limits.FHIR_DEPTH_MAX + "]" * limits.FHIR_DEPTH_MAX + "}}"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "bundle: it is not a JSON object"),
        (b"[]", "bundle: it is not a JSON object"),
        (b'{"resourceType":"Patient","entry":[]}', "'Patient', not 'Bundle'"),
        (b'{"resourceType":"Bundle"}', "no entry array"),
        (b'{"resourceType":"Bundle","entry":{}}', "entry is not an array"),
        (_bundle(), "entry array is empty"),
        (_bundle(_GOOD, "7"), "entry 1: it is not an object"),
        (_bundle(_GOOD, '{"fullUrl":"x"}'), "entry 1: it has no resource"),
        (_bundle(_GOOD, _GOOD, '{"resource":{}}'), "entry 2: its resource has no resourceType"),
        (_bundle('{"resource":{"resourceType":7}}'), "entry 0: its resource has no resourceType"),
        (_bundle('{"resource":[1]}'), "entry 0: its resource is not an object"),
        (_bundle('{"resource":{"resourceType":"A","a":{"b":1,"b":2}}}'), "entry 0: not valid JSON: key 'b' stands"),
        (_bundle('{"resource":{"resourceType":"A"},"resource":{"resourceType":"B"}}'), "entry 0: key 'resource'"),
        (b'{"resourceType":"Bundle","entry":[],"entry":[]}', "key 'entry' stands twice"),
        (_bundle(_DEEP), "nested deeper"),
        (b"[" * 100_000, "nested deeper"),
        (b"\xef\xbb\xbf" + _bundle(_GOOD), "byte order mark"),
        (_bundle(_GOOD)[:-4] + b"\xff}]}", "is not UTF-8"),
        (_bundle('{"resource":{"resourceType":"A","x":"') + b"\xed\xa0\x80", "is not UTF-8"),
        (_bundle('{"resource":{"resourceType":"A","x":"\\ud800"}}'), "entry 0: an escape stands for half a character"),
        (_bundle('{"resource":{"resourceType":"A","x":NaN}}'), "NaN is not a JSON number"),
        (_bundle('{"resource":{"resourceType":"A"},"request":{"method":"DELETE"}}'), "request.method 'DELETE'"),
        (_bundle(_GOOD) + b"x", "something follows"),
        (_bundle(_GOOD)[:-1], "a comma is missing"),
        (b'{"resourceType":"Bundle","entry":[' + _GOOD.encode() + b",]}", "entry 1: it is not an object"),
        (b'{"a" 1}', "a colon is missing"),
        (b'{"a":1,}', "a key is missing"),
        (b'{"a":"' + b'\\"' * 100_000, "not valid JSON"),
    ],
)  # fmt: skip
def test_a_bad_bundle_is_refused_with_its_entry_and_the_rule(data: bytes, words: str) -> None:
    with pytest.raises(Rejected) as refused:
        extract_bundle(data)
    assert refused.value.code is Code.E_FHIR_INVALID
    assert words in refused.value.detail


def test_sizes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each limit lets its last value pass and refuses the next."""
    data = _bundle(_GOOD, _GOOD)
    monkeypatch.setattr(limits, "FHIR_FILE_BYTES_MAX", len(data))
    monkeypatch.setattr(limits, "FHIR_ENTRIES_MAX", 2)
    monkeypatch.setattr(limits, "FHIR_RESOURCE_BYTES_MAX", 24)
    assert len(extract_bundle(data)) == 2
    with pytest.raises(Rejected, match=f"{len(data) + 1} bytes, the limit is {len(data)}"):
        extract_bundle(data + b" ")
    with pytest.raises(Rejected, match="entry 1: more than 1 entries"):
        monkeypatch.setattr(limits, "FHIR_ENTRIES_MAX", 1)
        extract_bundle(data)
    monkeypatch.setattr(limits, "FHIR_ENTRIES_MAX", 2)
    monkeypatch.setattr(limits, "FHIR_RESOURCE_BYTES_MAX", 23)
    with pytest.raises(Rejected, match="entry 0: resource of 24 bytes, the limit is 23"):
        extract_bundle(data)


def test_bad_lines_are_refused_with_their_number() -> None:
    good = b'{"resourceType":"Basic"}'
    for data, words in (
        (b"\n \n", "no resource"),
        (good + b"\n{}", "line 1: its resource has no resourceType"),
        (good + b"\n\n" + good + good, "line 2: more than one"),
        (good + b"\n{", "line 1: not valid JSON"),
    ):
        with pytest.raises(Rejected, match=words):
            extract_ndjson(data)
