"""Asking all validators at once for their shares of an allowed access: who answered, and who said what instead."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from p2pledger.chain.genesis import Founding
from p2pledger.client.links import Node
from p2pledger.health.recovery_release import ShareRequest
from p2pledger.network.api import SharesReply
from p2pledger.primitives.errors import InvalidInput, PeerFault, ProofError, Unavailable

Ask = Callable[[Node], Coroutine[Any, Any, SharesReply]]


@dataclass(frozen=True, slots=True)
class Heard:
    """What the validators said."""

    replies: tuple[SharesReply, ...]
    """In the order in which they came; their shares are not verified yet, `KeyRelease.open` does that."""
    failures: tuple[tuple[Node, Exception], ...]
    """Who answered something else, or nothing: Rejected has the code of a refusal."""


async def ask_all(
    nodes: list[Node], ask: Ask, founding: Founding, request: ShareRequest, enough: int | None = None
) -> Heard:
    """All at the same time; no later answer is waited for once `enough` of them have come."""
    replies: list[SharesReply] = []
    failures: list[tuple[Node, Exception]] = []

    async def one(node: Node) -> None:
        try:
            reply = await ask(node)
            _check(node, reply, founding, request)
        except (Unavailable, PeerFault, ProofError, InvalidInput, trio.TooSlowError) as error:
            failures.append((node, error))
            return
        replies.append(reply)
        if enough is not None and len(replies) >= enough:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(partial(one, node))
    return Heard(tuple(replies), tuple(failures))


def _check(node: Node, reply: SharesReply, founding: Founding, request: ShareRequest) -> None:
    """A node speaks for its own validator only, and about everything that was asked."""
    own = next((member.id for member in founding.validators.members if member.node == node.key), None)
    if reply.validator != own:
        raise PeerFault(node.key, f"answers with shares of validator {reply.validator.hex()}, which is not its own")
    if len(reply.shares) != len(request.openings):
        raise PeerFault(node.key, f"answers with {len(reply.shares)} shares for {len(request.openings)} records")
