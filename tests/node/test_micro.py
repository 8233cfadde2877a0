"""The ward of `python -m bench.micro release`, once: real validators, a real reader, no figure that is a time alone."""

from pathlib import Path

import pytest

from bench.micro.port import measure
from bench.micro.ward import N, open_ward

pytestmark = pytest.mark.process


async def test_a_chart_and_seven_allergies_are_read_and_most_of_a_release_is_its_share(tmp_path: Path) -> None:
    """Judging, entries and TLS together cost less than twice the arithmetic, which tests/unit/threshold counts."""
    async with open_ward(tmp_path / "consortium") as ward:
        assert len(ward.index.refs) == 182
        released = await ward.release(2)
        opened = await ward.chart(1)
        allergies = await ward.allergies(1)
    assert 0 < released.shares_s <= released.whole_s <= 3 * released.shares_s
    assert opened.reader_s < opened.validators_s, f"a reader costs less than {N} validators"
    assert min(allergies.finality_s, allergies.opening_s) > 0


def test_the_cost_of_the_client_port_is_measured_on_transactions_that_all_succeed(tmp_path: Path) -> None:
    """`python -m bench.micro port`, shortly: a node, its engine and a client, and no figure is held against a time."""
    assert all(spent_us > 0 for spent_us in measure(tmp_path, 1_500))
