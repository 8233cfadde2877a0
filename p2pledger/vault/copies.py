"""Copies that an organisation keeps for other custodians: each custodian's apart, and for nobody but itself.

What is kept is sealed to its custodian and its patients. Who keeps it can lose it, or withhold it, and read nothing.
"""

from collections.abc import Callable
from functools import partial
from itertools import dropwhile, islice
from typing import assert_never

import trio

from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import Bytes16, NodeId
from p2pledger.vault.objects import ObjectStore, is_content
from p2pledger.vault.possession import answer_from
from p2pledger.vault.wire import (
    NAMES_MAX,
    Answer,
    DeleteObject,
    Done,
    FetchRecords,
    GetObject,
    ListNames,
    NamesReply,
    ObjectReply,
    ProofsReply,
    Prove,
    PutObject,
    Question,
)


class Copies:
    """Answers custodians about their own copies."""

    def __init__(
        self, holder: NodeId, store_of: Callable[[Bytes16], ObjectStore], has_room: Callable[[], bool]
    ) -> None:
        """`store_of` opens the store of one custodian's copies; `has_room`: whether one more object is welcome."""
        self._holder = holder
        self._store_of = store_of
        self._has_room = has_room
        self._stores: dict[Bytes16, ObjectStore] = {}

    async def answer(self, owner: Bytes16, question: Question) -> Answer:
        """Raises Rejected, StoreError."""
        return await trio.to_thread.run_sync(partial(self._answer, self._of(owner), question))

    def _of(self, owner: Bytes16) -> ObjectStore:
        if owner not in self._stores:
            self._stores[owner] = self._store_of(owner)
        return self._stores[owner]

    def _answer(self, store: ObjectStore, question: Question) -> Answer:
        match question:
            case PutObject():
                if not self._has_room():
                    raise Rejected(Code.E_BUSY, "this vault has no room for another copy")
                keep = store.put if is_content(question.name) else store.replace
                keep(question.name, question.data)
                return Done()
            case GetObject():
                return ObjectReply(store.get(question.name))
            case ListNames():
                names = store.names()
                if question.after:
                    last = _order(question.after)
                    names = dropwhile(lambda name: _order(name) <= last, names)
                return NamesReply(tuple(islice(names, NAMES_MAX)))
            case Prove():
                nonce, holder = question.nonce, self._holder
                return ProofsReply(tuple(answer_from(store, nonce, holder, name) for name in question.names))
            case DeleteObject():
                store.delete(question.name)
                return Done()
            case FetchRecords():
                raise Rejected(Code.E_ROLE, "a custodian's key is no reader's: ask with the account key of the access")
        assert_never(question)


def _order(name: bytes) -> tuple[bool, bytes]:
    """As stores list names: those of content first."""
    return not is_content(name), name
