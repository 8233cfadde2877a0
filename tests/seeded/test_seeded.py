"""On the code as it is no seed fails, and seeds reach what they are for; tests/mutants shows that they would notice."""

from collections import Counter

import pytest

from tests.seeded import blocks, counts, doors, duties, solo, stores


@pytest.mark.parametrize("nodes", [4, 5, 7])
@pytest.mark.parametrize(
    "part", [doors, counts, blocks, stores, solo, duties], ids=lambda part: part.__name__.rsplit(".", 1)[-1]
)
def test_every_part_keeps_to_its_rules(part: object, nodes: int) -> None:
    """P2 to P23: one consortium size after another, the first seeds."""
    for seed in range(20):
        part.run_seed(seed, nodes)  # type: ignore[attr-defined]


def test_what_is_demanded_is_reached() -> None:
    """A check that is never reached proves nothing."""
    shown: Counter[str] = Counter()
    for seed in range(100):
        for part in (doors, counts, stores, duties):
            shown.update(part.run_seed(seed, 4))
    for seed in range(40):
        shown.update(blocks.run_seed(seed, 4))
    for seed in range(300):
        shown.update(solo.run_seed(seed, 4))
    for situation in SITUATIONS:
        assert shown[situation] >= 3, f"{situation} was reached {shown[situation]} times"


SITUATIONS = (
    "BAD",
    "GOOD",
    "NEW-VIEW handed on",
    "NewView refused: its certificate with one vote twice",
    "NewView refused: quoting a claim of its own view",
    "NewView refused: with a claim too few",
    "NewView refused: with a lower claim's certificate",
    "NewView refused: with headers that do not follow each other",
    "NewView refused: with one claim twice",
    "ViewChange refused: its claim not of an earlier view",
    "ViewChange refused: its claim not that of its certificate",
    "ViewChange refused: its commit certificate of PREPAREs",
    "WAIT",
    "body of an open block",
    "certificate",
    "contradicting vote",
    "disk lost",
    "evidence",
    "far behind",
    "fork",
    "joins",
    "known already",
    "journal refused True",
    "lower lock",
    "offers",
    "only a certificate waits",
    "own words from elsewhere",
    "proposal handed on",
    "quorum of claims",
    "range refused with other bodies",
    "rest",
    "restart with a journal",
    "rival claims",
    "rollback",
    "room False",
    "room won back",
    "said again",
    "silence ends",
    "stale timer",
    "turns",
    "sync from a liar",
    "synced",
    "term over",
    "tip prepared again",
    "two blocks shown",
    "two claims",
    "view opened",
    "vote out of bounds",
)
