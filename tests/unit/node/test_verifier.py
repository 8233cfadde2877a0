"""What the verifier counts: signatures by what they stand under, and the processor time that it took."""

from collections.abc import Sequence
from pathlib import Path

import trio

from p2pledger.node.verifier import Submission, Verifier
from p2pledger.primitives.errors import Rejected
from tests.unit.node.lone import home_of_one, lone_node


async def test_each_signature_of_a_submission_is_counted_once(tmp_path: Path) -> None:
    """A registration carries two signatures; both are counted as a submission's, and the thread's time with them."""
    home = home_of_one(tmp_path / "lone")
    verdicts: list[Rejected | None] = []
    done = trio.Event()

    def note(refusals: Sequence[Rejected | None]) -> None:
        verdicts.extend(refusals)
        if len(verdicts) == 3:
            done.set()

    with lone_node(home) as lone:
        verifier = Verifier(home.founding, lambda _: None, threads=1)
        verifier.ask_submission(Submission([lone.registration(1)], note))
        verifier.ask_submission(Submission([lone.registration(2), lone.registration(3)], note))
        assert verifier.submissions_waiting == 3
        async with trio.open_nursery() as nursery:
            nursery.start_soon(verifier.run)
            await done.wait()
            nursery.cancel_scope.cancel()
    assert verdicts == [None] * 3
    assert verifier.checked == {"submission": 6}
    assert verifier.bad == verifier.submissions_waiting == 0
    assert verifier.cpu_s["submission"] > 0
    assert verifier.cpu_s["vote"] == verifier.cpu_s["batch"] == 0
