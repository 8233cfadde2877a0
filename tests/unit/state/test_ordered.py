"""A map whose keys come in order."""

from hypothesis import given
from hypothesis import strategies as st

from p2pledger.state.ordered import OrderedMap, prefix_end

KEYS = st.binary(max_size=3)
OPERATIONS = st.lists(st.tuples(st.sampled_from(["put", "discard", "scan"]), KEYS, KEYS), max_size=60)


@given(OPERATIONS)
def test_it_is_a_dict_with_ranges(operations: list[tuple[str, bytes, bytes]]) -> None:
    """Whatever was put and discarded between two scans, in any order."""
    ordered: OrderedMap[bytes] = OrderedMap()
    model: dict[bytes, bytes] = {}
    for operation, key, other in operations:
        if operation == "put":
            ordered.put(key, other)
            model[key] = other
        elif operation == "discard":
            ordered.discard(key)
            model.pop(key, None)
        else:
            wanted = sorted(item for item in model.items() if item[0].startswith(key) and item[0] >= key + other)
            assert ordered.range(key, other) == list(ordered.scan(key, other)) == wanted
    assert ordered.as_dict() == model
    assert len(ordered) == len(model)
    assert ordered.range(b"") == sorted(model.items())


def test_a_copy_goes_its_own_way() -> None:
    """Neither sees what the other does afterwards."""
    ordered = OrderedMap({b"a": 1})
    assert ordered.range(b"") == [(b"a", 1)]
    ordered.put(b"b", 2)
    twin = ordered.copy()
    ordered.put(b"c", 3)
    twin.discard(b"a")
    assert ordered.range(b"") == [(b"a", 1), (b"b", 2), (b"c", 3)]
    assert twin.range(b"") == [(b"b", 2)]


@given(st.binary(max_size=4), st.binary(max_size=4))
def test_the_end_of_a_prefix_is_above_all_its_keys_and_no_others(prefix: bytes, key: bytes) -> None:
    """A key from the prefix on, and below the end, begins with the prefix."""
    end = prefix_end(prefix)
    is_within = key >= prefix and (end is None or key < end)
    assert is_within == key.startswith(prefix)
