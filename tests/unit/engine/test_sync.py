"""Whom to ask when behind (P21)."""

from p2pledger.primitives.ids import Height, NodeId
from p2pledger.sync import RETRY_MS, Syncer
from tests.scenarios.stage import Stage

NODES = [NodeId(bytes([number]) * 32) for number in range(3)]


def aimed() -> Syncer:
    stage = Stage("a")
    syncer = Syncer()
    syncer.aim(stage.certificate("commit", stage.block()))
    return syncer


def test_one_request_at_a_time() -> None:
    syncer = aimed()
    assert syncer.next_peer(NODES, 0) is not None
    assert syncer.next_peer(NODES, RETRY_MS - 1) is None


def test_a_silent_peer_does_not_keep_us_back_for_ever() -> None:
    """A liar among the others must not make the one silent peer the favourite."""
    syncer = aimed()
    syncer.fault(NODES[0])
    asked = [syncer.next_peer(NODES, moment * RETRY_MS) for moment in range(6)]
    assert set(asked) == set(NODES)


def test_who_sent_what_does_not_verify_comes_last() -> None:
    """P21: a liar costs one request, not one for each range."""
    syncer = aimed()
    for node in NODES[:2]:
        syncer.fault(node)
    assert syncer.next_peer(NODES, 0) == NODES[2]


def test_it_rests_when_the_target_is_reached_by_whatever_way() -> None:
    syncer = aimed()
    syncer.reached(Height(1))
    assert not syncer.is_active
    assert syncer.next_peer(NODES, 0) is None
