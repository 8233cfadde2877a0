"""What we claim to hold is tested, what is not tested is not claimed, and docs/promises.md says which is which."""

from tests.promises import DOCUMENT, citations, document, promises


def test_every_row_that_is_said_to_hold_has_a_test() -> None:
    assert [row for row, promise in promises().items() if promise.state == "holds" and row not in citations()] == []


def test_what_does_not_hold_says_what_is_missing() -> None:
    assert [row for row, promise in promises().items() if (promise.state == "holds") == bool(promise.missing)] == []


def test_no_test_cites_a_row_that_is_not_there() -> None:
    assert citations().keys() - promises().keys() == set()


def test_the_document_is_what_the_tests_say() -> None:
    """`python -m tests.promises` writes it."""
    assert DOCUMENT.read_text() == document(), "run python -m tests.promises"
