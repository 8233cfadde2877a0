"""The purposes of use, and where being one of another ends."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from p2pledger.health.purposes import PARENTS, STOPS, Purpose, covers

SHIPPED = Path(__file__).parent / "fixtures" / "CodeSystem-v3-ActReason.json"


def _tree(concepts: list[dict[str, Any]], parent: str | None) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for concept in concepts:
        found[concept["code"]] = parent
        found |= _tree(concept.get("concept", []), concept["code"])
    return found


def test_the_table_is_the_shipped_terminology() -> None:
    """Every code of the PurposeOfUse branch of v3-ActReason stands under the parent it has there, and no other."""
    tree = _tree(json.loads(SHIPPED.read_text())["concept"], None)
    assert len(tree) == 60
    del tree["PurposeOfUse"]
    assert tree == PARENTS
    assert sorted(get_args(Purpose)) == sorted(tree)


def _plain_is_a(granted: str, asked: str | None) -> bool:
    """Subsumption as FHIR has it."""
    while asked is not None and asked != granted:
        asked = PARENTS.get(asked)
    return asked is not None


@pytest.mark.parametrize("asked", ["ETREAT", "ERTREAT", "BTG", "CLINTRL"])
def test_treatment_covers_no_emergency_and_no_trial(asked: Purpose) -> None:
    """0.6: in the terminology these are kinds of treatment; here a consent to treatment does not reach them."""
    assert _plain_is_a("TREAT", asked), "without the stops a TREAT consent would authorise this"
    assert not covers("TREAT", asked)


def test_a_code_covers_itself_and_what_is_below_it() -> None:
    """Apart from the stops, subsumption is that of the terminology."""
    assert covers("TREAT", "TREAT") and covers("TREAT", "COC") and covers("ETREAT", "ERTREAT")
    assert covers("HPAYMT", "ELIGVER") and not covers("ELIGVER", "HPAYMT")
    assert not covers("ETREAT", "BTG"), "breaking the glass is nobody's descendant"
    for granted in get_args(Purpose):
        for asked in get_args(Purpose):
            if covers(granted, asked):
                assert _plain_is_a(granted, asked)
            elif _plain_is_a(granted, asked):
                assert STOPS & {asked, PARENTS[asked]}, (granted, asked)
