"""What a restarted node asks of the others before it speaks, and what it answers them (P20)."""

from p2pledger.chain.genesis import Founding
from p2pledger.consensus.events import InquiryAnswered
from p2pledger.consensus.repetition import newest_by
from p2pledger.consensus.replica import Replica
from p2pledger.consensus.verification import verify_message
from p2pledger.messages import Inquiry, InquiryAnswer
from p2pledger.primitives.ids import NodeId

STATEMENTS_MAX = 8
"""The newest statements of one author that an answer carries."""


class Inquiries:
    """One serial for each start, so that an answer to an earlier life is not taken for one to this."""

    def __init__(self, founding: Founding, replica: Replica, serial: int) -> None:
        self._chain = founding.chain
        self._validators = founding.validators
        self._replica = replica
        self._serial = serial

    @property
    def own(self) -> Inquiry:
        """This node's question to all others."""
        return Inquiry(self._serial)

    def answer(self, node: NodeId, inquiry: Inquiry) -> InquiryAnswer | None:
        """The newest statements held here of the validator that asks; None for who is no validator."""
        author = self._validators.of_node(node)
        if author is None:
            return None
        return InquiryAnswer(inquiry.serial, tuple(newest_by(self._replica, author))[:STATEMENTS_MAX])

    def heard(self, node: NodeId, answer: InquiryAnswer) -> InquiryAnswered | None:
        """A validator's answer to the open question, its statements verified; None for a stale or superfluous one.

        Raises InvalidInput for statements that do not verify.
        """
        author = self._validators.of_node(node)
        if author is None or answer.serial != self._serial or not self._replica.recovery.is_waiting:
            return None
        epoch = self._replica.epoch
        verified = (verify_message(signed, self._chain, epoch, self._validators) for signed in answer.own)
        return InquiryAnswered(author, tuple(verified))
