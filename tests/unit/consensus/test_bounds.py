"""P23: what is worth the time of verifying it, kind by kind."""

import msgspec
import pytest

from p2pledger.consensus import events as on
from p2pledger.consensus.bounds import is_wanted
from p2pledger.consensus.messages import Message, Signed
from p2pledger.primitives.ids import Epoch, Signature
from tests.scenarios.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage("d")


def wanted(stage: Stage, message: Message) -> bool:
    return is_wanted(stage.replica, stage.signed(message))


def loses_patience(stage: Stage) -> None:
    """It leaves its view on its own."""
    stage.happens(on.WorkChanged(has_work=True))
    stage.fires()


def test_another_epoch_is_not_listened_to(stage: Stage) -> None:
    """There is one epoch; a message of another one says nothing here."""
    change = stage.view_change("a", 1)
    assert wanted(stage, change)
    stranger = msgspec.structs.replace(change, epoch=Epoch(1))
    assert is_wanted(stage.replica, Signed(stranger, Signature(bytes(64)))) is False


def test_a_view_change_is_wanted_for_later_views_only(stage: Stage) -> None:
    """P10: in an active view those above it, in a view change those for it too."""
    assert [wanted(stage, stage.view_change("a", view)) for view in (0, 1, 2)] == [False, True, True]
    stage.reaches_view(1)
    assert [wanted(stage, stage.view_change("a", view)) for view in (1, 2)] == [False, True]
    loses_patience(stage)
    assert [wanted(stage, stage.view_change("a", view)) for view in (1, 2, 3)] == [False, True, True]


def test_a_known_view_change_is_not_verified_again(stage: Stage) -> None:
    """P23: nor an older one of its author; one that says something else for its view is evidence."""
    lock = stage.certificate("prepare", stage.block(), who="abc")
    stage.sees(stage.view_change("a", 2))
    assert not wanted(stage, stage.view_change("a", 2))
    assert not wanted(stage, stage.view_change("a", 1))
    assert wanted(stage, stage.view_change("a", 2, lock))
    assert wanted(stage, stage.view_change("a", 3)) and wanted(stage, stage.view_change("b", 2))


def test_of_new_views_those_to_enter_and_a_second_one_are_wanted(stage: Stage) -> None:
    """P13: the one that was entered is known; one that differs is evidence; what was left is over."""
    changes = {view: [stage.view_change(who, view) for who in "abc"] for view in (1, 2)}
    first, second = (stage.new_view(view, changes[view]) for view in (1, 2))
    assert wanted(stage, first) and wanted(stage, second)
    stage.reaches_view(1)
    assert not wanted(stage, first)
    lock = stage.certificate("prepare", stage.block(), who="abc")
    assert wanted(stage, stage.new_view(1, [stage.view_change(who, 1, lock) for who in "abc"]))
    assert wanted(stage, second)
    stage.reaches_view(2)
    assert not wanted(stage, first)


def test_nobody_enters_the_first_view(stage: Stage) -> None:
    """P13: it is active from the start, so there is nothing that a NEW-VIEW could contradict."""
    assert not wanted(stage, stage.new_view(0, [stage.view_change(who, 0) for who in "abc"]))


def test_the_new_view_of_the_view_asked_for_is_wanted(stage: Stage) -> None:
    """P13: for its own view while changing."""
    loses_patience(stage)
    assert stage.replica.view == 1
    assert wanted(stage, stage.new_view(1, [stage.view_change(who, 1) for who in "abc"]))
