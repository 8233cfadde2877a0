"""Receipts of transactions that somebody else submitted, or this program in an earlier life."""

from collections.abc import Sequence

import trio

from p2pledger.chain.genesis import Founding
from p2pledger.client.ledger import Receipt
from p2pledger.client.links import Node
from p2pledger.consensus.anchor import check_receipt
from p2pledger.network.api import AwaitReceipt, Failure, ReceiptReply
from p2pledger.network.connection import connect
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, InvalidInput, PeerFault, ProofError, Rejected, Unavailable
from p2pledger.primitives.ids import AccountKey, Nonce

_ANSWER_S_MAX = 10.0
"""For a node to answer, beyond the time that it was asked to wait."""


async def proven_receipt(
    founding: Founding,
    nodes: Sequence[Node],
    asking: SigningKey,
    account: AccountKey,
    nonce: Nonce,
    timeout_ms: int = 0,
) -> Receipt:
    """The proven receipt of a nonce, from the first node that has it; each waits for it for so long.

    The proof says that the transaction was executed with this outcome; that it is the one of this nonce is what the
    node says, as a receipt names its transaction only. Raises Unavailable where no node has it yet, or what went
    wrong at the last one.
    """
    failure: Exception = Unavailable("no node to ask")
    for node in nodes:
        try:
            with trio.fail_after(timeout_ms / 1000 + _ANSWER_S_MAX):
                async with connect(node.host, node.port, node.key, asking, founding.chain) as connection:
                    reply = await connection.call(AwaitReceipt(0, account, nonce, True, timeout_ms))
            match reply:
                case ReceiptReply() if reply.evidence is not None:
                    executed = check_receipt(reply.evidence, founding.chain, founding.validators)
                    return Receipt(executed, reply.evidence)
                case Failure(code=Code.E_BUSY):
                    failure = Unavailable(reply.detail)
                case Failure() if reply.code in Code.__members__.values():
                    failure = Rejected(Code(reply.code), reply.detail)
                case _:
                    failure = PeerFault(node.key, f"answered a question for a receipt with {type(reply).__name__}")
        except trio.TooSlowError:
            failure = Unavailable(f"{node} stays silent")
        except (Unavailable, PeerFault, ProofError, InvalidInput) as error:
            failure = error
    raise failure
