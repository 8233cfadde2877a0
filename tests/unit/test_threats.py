"""Every threat that we claim to withstand has a test that shows it, or a reason why there is none."""

from tests.threats import DOCUMENT, REASONS, document, shown_attacks, threat_rows


def test_every_row_has_an_attack_test_or_a_reason() -> None:
    shown = {row for attack in shown_attacks() for row in attack.rows}
    rows = set(threat_rows())
    assert rows - shown - REASONS.keys() == set(), "neither shown nor reasoned"
    assert shown - rows == set(), "no such row in docs/threats.md"
    assert REASONS.keys() - rows == set()
    assert REASONS.keys() & shown == set(), "a reason for something that is shown"


def test_every_attack_test_names_what_it_switches_off() -> None:
    """That it really mattered is seen to by the fixture when the test runs."""
    assert [attack.name for attack in shown_attacks() if not attack.checks] == []


def test_the_document_is_what_the_tests_say() -> None:
    """`python -m tests.threats` writes it."""
    assert DOCUMENT.read_text() == document(), "run python -m tests.threats"
