"""Real nodes in real, separate networks: cut links, one-way links, lost quorums, stepped clocks."""

import pytest

from tests.system.consortium import Consortium, N

pytestmark = pytest.mark.system
ALL = range(N)


def test_four_nodes_in_four_networks_commit_and_stop_cleanly(consortium: Consortium) -> None:
    """They link over TLS between namespaces, agree on one chain, and SIGTERM ends each with status 0."""
    consortium.start(*ALL)
    consortium.until_height(3, *ALL)
    assert len({consortium.chain(index) for index in ALL}) == 1
    assert [consortium.stop(index) for index in ALL] == [0, 0, 0, 0]


def test_a_second_daemon_on_one_home_ends_with_bad_configuration(consortium: Consortium) -> None:
    """T32: the first goes on, the second says why and exits with 78."""
    consortium.start(*ALL)
    consortium.until_height(1, *ALL)
    assert consortium.start_second(0) == 78
    assert "second daemon" in consortium.logs(0)
    consortium.until_height(consortium.height(0) + 2, *ALL)


def test_three_of_four_go_on_without_a_node_that_hears_nothing(consortium: Consortium) -> None:
    """A one-way cut of one validator (f = 1) stops nobody else, and it catches up when it hears again."""
    consortium.start(*ALL)
    consortium.until_height(2, *ALL)
    consortium.deafen(0, 1, 2, 3)
    consortium.until_height(consortium.height(1) + 5, 1, 2, 3)
    missed = consortium.height(1)
    consortium.heal()
    consortium.until_height(missed + 1, *ALL)


def test_two_halves_commit_nothing_and_go_on_when_they_are_one_again(consortium: Consortium) -> None:
    """Without a quorum (q = 3) there is no progress on either side; healing needs no operator."""
    consortium.start(*ALL)
    consortium.until_height(2, *ALL)
    for here, there in (((0, 1), (2, 3)), ((2, 3), (0, 1))):
        for index in here:
            consortium.deafen(index, *there)
    consortium.until("no half has a quorum", lambda: all(consortium.get(i, "/readyz") is None for i in ALL))
    before = [consortium.height(index) for index in ALL]
    for _ in range(5):  # each round of questions takes longer than a heartbeat
        after = [consortium.height(index) for index in ALL]
    # A certificate that was complete before the cut may still be counted; nothing beyond it can be.
    assert max(after) <= max(before) + 1
    consortium.heal()
    consortium.until_height(max(after) + 2, *ALL)


def shifted(consortium: Consortium, shift: str) -> float:
    """Start all, node 0 with a wall clock shifted by libfaketime; the seconds by which its log lines lead."""
    consortium.start(1, 2, 3)
    consortium.start(0, prefix=("faketime", "-f", shift), environ={"FAKETIME_DONT_FAKE_MONOTONIC": "1"})
    consortium.until_height(5, *ALL)
    return (consortium.started_at(0) - consortium.started_at(1)).total_seconds()


def test_a_wrong_clock_within_the_drift_stops_nobody(consortium: Consortium) -> None:
    """T34: a validator whose wall clock is 8 s ahead (drift: 10 s) follows the others."""
    assert 3 < shifted(consortium, "+8s") < 13


def test_an_hour_of_wrong_clock_does_not_stop_the_others(consortium: Consortium) -> None:
    """T34: the others commit without its vote, and it follows: certificates do not depend on its clock."""
    assert shifted(consortium, "-1h") < -3_500
