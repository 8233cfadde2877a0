"""Whether shares of keys left as they may (health invariants I-1 to I-5, I-9, I-10), judged from outside.

From the blocks and receipts that honest nodes told, it keeps its own account of accesses, consents, people, joint keys
and reports. Whoever runs nodes tells beside that what became durable on validators' disks, what left them, and, of
readers and custodians, the secrets: the judge may know what no node knows. As the rest of the observer it shares no
code with the nodes.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import combinations

from p2pledger.sim.observer import curve, deposit_book
from p2pledger.sim.observer.blocks import Founding, Header, Receipt, Transaction
from p2pledger.sim.observer.curve import Label
from p2pledger.sim.observer.deposit_book import DepositBook
from p2pledger.sim.observer.encoding import Unreadable, holds, listed, pack, unpack
from p2pledger.sim.observer.judgement import InvariantBroken
from p2pledger.sim.observer.recoveries import Recoveries

IDENTITY, SUSPEND, RESUME, CREDENTIAL, CREDENTIAL_END, GRANT, REVOKE, ACCESS, ERASE = 2, 4, 5, 6, 7, 20, 21, 30, 57
"""Numbers of the operations that matter."""
DECIDED, ACTIVATED, REPORTED, TABLE_MADE = 30, 44, 45, 46
"""Numbers of the events that matter."""
POP = b"\x11p2pl/access-pop/1"
"""What a reader's proof of possession begins with, its length first."""
HEARTBEATS_MAX = 2
"""Whose last block is older than so many heartbeats does not know what the others know, and releases nothing."""
CAPSULES_TRIED = 6
"""Of so many capsules of a run all subsets of leaked shares are tried."""

Ref = tuple[bytes, int]
"""A record: (batch, index); what waits for a recovery: (hash of the capsule, 0)."""
Sharing = tuple[int, int]
"""(key epoch, share epoch); of one-time secrets (0, number of their table)."""


@dataclass(slots=True)
class _Access:
    height: int
    decision: int
    author: bytes
    pid: bytes
    reader: bytes
    not_after_ms: int
    basis: bytes | None
    """The consent that the request named: it alone can carry the access, then and now."""


@dataclass(slots=True)
class _Consent:
    until_ms: int
    revoked: int | None = None


@dataclass(slots=True)
class _Person:
    suspended: list[tuple[int, bool]] = field(default_factory=list)
    credentials: list[tuple[int, str, int]] = field(default_factory=list)
    """(height, role, until); until 0: taken back."""


@dataclass(frozen=True, slots=True)
class Share:
    """A sealed share that a node let go, with the height and the clock by which it had decided."""

    node: int
    height: int
    wall_ms: int
    access_id: bytes
    reader: bytes
    """The key to which it says that the share is sealed."""
    ref: Ref
    sharing: Sharing
    capsule: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class _Sealed:
    label: Label
    capsule: bytes
    content_key: bytes


class Releases:
    """The judge of all shares of one run."""

    def __init__(self, founding: Founding, validators: Sequence[bytes], reached: Counter[str]) -> None:
        """`validators`: the consensus key of each node. Nothing is looked at before `watch`."""
        seats = sorted(validators)
        self._validators = tuple(validators)
        self._index = {node: seats.index(key) + 1 for node, key in enumerate(validators)}
        self._threshold = len(seats) - founding.f
        self._drift_ms, self._heartbeat_ms = founding.drift_ms, founding.heartbeat_ms
        self._chain = founding.chain
        self._recoveries = Recoveries(founding.chain, reached)
        self._deposits = DepositBook({seat.node: seat.key for seat in founding.seats}, self._threshold)
        self.liars: set[int] = set()
        """Those whose shares and disks are not judged."""
        self._is_watching = False
        self._reached = reached
        self._times: dict[int, int] = {}
        self._accesses: dict[bytes, _Access] = {}
        self._consents: dict[bytes, _Consent] = {}
        self._people: dict[bytes, _Person] = defaultdict(_Person)
        self._dids: dict[bytes, bytes] = {}
        self._publics: dict[int, bytes] = {}
        self._activated: dict[Sharing, int] = {}
        self._reports: dict[tuple[bytes, bytes], int] = {}
        self._secrets: dict[bytes, bytes] = {}
        self._erased: list[tuple[int, bytes, tuple[int, ...]]] = []
        """(height, batch, indices or all of it)."""
        self._scopes: dict[bytes, set[Ref]] = {}
        self._sealed: dict[Ref, _Sealed] = {}
        self._disks: dict[int, dict[Sharing, bytes]] = defaultdict(dict)
        self._ever: dict[Sharing, dict[int, bytes]] = defaultdict(dict)
        self._of_liars: dict[tuple[int, Sharing], bytes] = {}
        self._entries: dict[int, set[tuple[bytes, Ref]]] = defaultdict(set)
        self._waiting: list[Share] = []
        self._images: dict[Ref, dict[tuple[int, int], bytes]] = defaultdict(dict)
        """(share epoch, index) to D_j: all that readers, and whoever stole from them, could have."""
        self._dealt: dict[Ref, dict[int, bytes]] = defaultdict(dict)
        """The same of one-time secrets: index to p(index)."""
        self._released: dict[int, set[bytes]] = defaultdict(set)
        """Accesses for which a verified share of a node is in a reader's hands."""

    def watch(self, liars: Collection[int]) -> None:
        """From the beginning of a run whose chain has the health contracts."""
        self._is_watching = True
        self.liars |= set(liars)

    # From the chain

    def take(self, header: Header, done: Sequence[tuple[Transaction, Receipt]]) -> None:
        """What a height came to; heights may come out of order."""
        if not self._is_watching:
            return
        self._times[header.height] = header.time_ms
        for transaction, receipt in done:
            for operation in listed(unpack(transaction.operations)):
                self._recoveries.take(operation, transaction, receipt)
            if receipt.code == 0:
                self._take(header.height, transaction, receipt)
        waiting, self._waiting = self._waiting, []
        for share in waiting:
            self._judge_when_known(share)

    def _take(self, height: int, transaction: Transaction, receipt: Receipt) -> None:
        for operation in listed(unpack(transaction.operations)):
            self._deposits.take(operation, transaction, receipt)
            match operation:
                case (tag, did, _, key, *_) if tag == IDENTITY:
                    self._dids[key] = did
                    self._recoveries.registered(did, key, receipt)
                case (tag, did) if tag in (SUSPEND, RESUME):
                    self._people[did].suspended.append((height, tag == SUSPEND))
                case (tag, did, role, _, _, until_ms, _) if tag == CREDENTIAL:
                    self._people[did].credentials.append((height, role, until_ms))
                case (tag, did, role) if tag == CREDENTIAL_END:
                    self._people[did].credentials.append((height, role, 0))
                case (tag, consent, *rest) if tag == GRANT:
                    self._consents[consent] = _Consent(rest[8])
                case (tag, consent, _) if tag == REVOKE:
                    self._consents[consent].revoked = height
                case (tag, _, _, _, parts, _, _) if tag == ERASE:
                    for batch_id, indices in parts:
                        self._erased.append((height, batch_id, indices))
                case (tag, access_id, _, pid, *rest) if tag == ACCESS:
                    reader, pop, not_after_ms = rest[8:11]
                    if not holds(transaction.sender, POP + self._chain + pack((reader, access_id, rest[3])), pop):
                        raise InvariantBroken(f"I-5: access {access_id.hex()[:8]} binds a key that nobody has proved")
                    access = _Access(height, -1, transaction.sender, pid, reader, not_after_ms, rest[0])
                    self._accesses.setdefault(access_id, access)
                case _:
                    pass
        for data in receipt.events:
            match unpack(data):
                case (tag, access_id, _, decision, *_) if tag == DECIDED:
                    self._accesses[access_id].decision = decision
                case (tag, key_epoch, share_epoch, public) if tag == ACTIVATED:
                    self._activated[key_epoch, share_epoch] = height
                    if self._publics.setdefault(key_epoch, public) != public:
                        raise InvariantBroken(f"I-10: sharing {share_epoch} of key {key_epoch} has another public key")
                case (tag, access_id, _, validator, records) if tag == REPORTED:
                    self._reports[access_id, validator] = records
                case (tag, table, _, _, _) if tag == TABLE_MADE:
                    self._deposits.table_made(table, receipt)
                case _:
                    pass

    # From people and disks

    def knows_reader(self, secret: bytes, public: bytes) -> None:
        """The secret of a reader's ephemeral key."""
        self._secrets[public] = secret

    def knows_scope(self, access_id: bytes, refs: Collection[Ref]) -> None:
        """The records that a reader has asked for; the chain has a commitment to them."""
        self._scopes[access_id] = set(refs)

    def knows_record(self, label: Label, capsule: bytes, content_key: bytes) -> None:
        """A custodian has sealed a record's key, and commits to this capsule."""
        self._sealed[label[4], label[5]] = _Sealed(label, capsule, content_key)

    def knows_recovery(self, label: Label, capsule: bytes, secret: bytes) -> None:
        """A patient names guardians, and puts the secrets of its box keys into this capsule."""
        self._sealed[sha256(capsule).digest(), 0] = _Sealed(label, capsule, secret)

    def knows_spoiled(self, ref: Ref, victims: frozenset[bytes]) -> None:
        """A writer of a one-time secret has cheated these validators."""
        self._deposits.knows_spoiled(ref, victims)

    def kept(self, node: int, sharing: Sharing, secret: bytes) -> None:
        """A share of a joint key became durable at a node."""
        if node in self.liars:
            self._of_liars[node, sharing] = secret
            return
        before = self._ever[sharing].setdefault(node, secret)
        if before != secret:
            raise InvariantBroken(f"I-10: node {node} has two shares of sharing {sharing}")
        earlier = self._ever.get((sharing[0], sharing[1] - 1), {}).get(node)
        if earlier == secret:
            raise InvariantBroken(f"I-10: the share of node {node} is the same in sharing {sharing} as before")
        self._disks[node][sharing] = secret

    def deleted(self, node: int, sharing: Sharing) -> None:
        """A share is gone from a node's disk."""
        self._disks[node].pop(sharing, None)

    def entered(self, node: int, access_id: bytes, ref: Ref) -> None:
        """An entry about a release became durable at a node."""
        self._entries[node].add((access_id, ref))

    def released(self, share: Share) -> None:
        """A share left a node. Raises InvariantBroken (I-1, I-2, I-4, I-5, I-9)."""
        if share.node not in self.liars:
            if (share.access_id, share.ref) not in self._entries[share.node]:
                raise InvariantBroken(f"I-9: a share of node {share.node} left before its entry was durable")
            self._check_sharing(share)
            self._judge_when_known(share)
        self._collect(share)

    def opened(self, ref: Ref, content_key: bytes) -> None:
        """A reader holds a record's key."""
        if self._sealed[ref].content_key != content_key:
            raise InvariantBroken(f"I-4: record {ref[0].hex()[:8]}/{ref[1]} was opened with another key")
        by_epoch = Counter(share_epoch for share_epoch, _ in self._images[ref])
        if max([len(self._dealt[ref]), *by_epoch.values()]) < self._threshold:
            raise InvariantBroken(f"I-3: record {ref[0].hex()[:8]}/{ref[1]} was opened with {dict(by_epoch)} shares")
        label = self._sealed[ref].label
        what = "record opened" if label[6] else "record opened by one-time shares"
        self._reached[what if label[0] == "record" else "recovered keys opened"] += 1

    def _check_sharing(self, share: Share) -> None:
        """Shares of an older sharing are refused once a newer one is active where they are."""
        key_epoch, share_epoch = share.sharing
        newer = self._activated.get((key_epoch, share_epoch + 1))
        if newer is not None and newer <= share.height:
            raise InvariantBroken(f"I-10: node {share.node} releases under sharing {share.sharing} after the next")

    def _judge_when_known(self, share: Share) -> None:
        """Once somebody has told what stands in every block up to that height; at the end, as far as is known."""
        if all(height in self._times for height in range(1, share.height + 1)):
            self._judge(share)
        else:
            self._waiting.append(share)

    def _judge(self, share: Share) -> None:
        who = f"node {share.node} at height {share.height} releases for access {share.access_id.hex()[:8]}"
        if self._recoveries.began(share.access_id) is not None:
            self._judge_recovered(who, share)
            return
        access = self._accesses.get(share.access_id)
        if access is None or access.height > share.height:
            raise InvariantBroken(f"I-1: {who}, which is not on its chain")
        if access.decision != 0:
            raise InvariantBroken(f"I-1: {who}, which was denied")
        block_ms = self._times[share.height]
        now_ms = max(block_ms, share.wall_ms - self._drift_ms)
        if now_ms >= access.not_after_ms:
            raise InvariantBroken(f"I-2: {who} after its end")
        if self._heartbeat_ms and share.wall_ms - self._drift_ms > block_ms + HEARTBEATS_MAX * self._heartbeat_ms:
            raise InvariantBroken(f"I-2: {who} and has long heard nothing")
        self._judge_consent(who, access, share.height, now_ms)
        self._judge_person(who, access, share.height, now_ms)
        if self._recoveries.is_known(access.pid, access.author):
            self._recoveries.judge_owner(who, access.pid, access.author, share.height, block_ms)
        sealed = self._sealed.get(share.ref)
        if sealed is None or sealed.capsule != share.capsule or sealed.label[3] != access.pid:
            raise InvariantBroken(f"I-4: {who} a capsule that is not the record's")
        for height, batch_id, indices in self._erased:
            if height <= share.height and batch_id == share.ref[0] and (not indices or share.ref[1] in indices):
                raise InvariantBroken(f"I-2: {who} a record that was given up for erasure at {height}")
        if sealed.label[6] != share.sharing[0]:
            raise InvariantBroken(f"I-4: {who} a share of another kind than the record's capsule")
        if not share.sharing[0]:
            self._deposits.judge(who, share.ref, share.sharing[1], share.height)
        if share.ref not in self._scopes.get(share.access_id, {share.ref}):
            raise InvariantBroken(f"I-1: {who} a record that was not asked for")
        if share.reader != access.reader:
            raise InvariantBroken(f"I-5: {who} to a key that was not bound")

    def _judge_recovered(self, who: str, share: Share) -> None:
        box, capsule = self._recoveries.judge_recovered(who, share.access_id, share.height, self._times)
        if sha256(share.capsule).digest() != capsule or share.ref != (capsule, 0):
            raise InvariantBroken(f"I-4: {who} a capsule that is not that of the guardians")
        if share.reader != box:
            raise InvariantBroken(f"I-5: {who} to a key that guardians have not approved")
        if (
            self._heartbeat_ms
            and share.wall_ms - self._drift_ms > self._times[share.height] + HEARTBEATS_MAX * self._heartbeat_ms
        ):
            raise InvariantBroken(f"I-2: {who} and has long heard nothing")

    def _judge_consent(self, who: str, access: _Access, height: int, now_ms: int) -> None:
        consent = self._consents.get(access.basis or b"")
        if consent is None:
            return
        if consent.revoked is not None and consent.revoked <= height:
            raise InvariantBroken(f"I-2: {who} after its consent was revoked at {consent.revoked}")
        if now_ms >= consent.until_ms:
            raise InvariantBroken(f"I-2: {who} after its consent has expired")

    def _judge_person(self, who: str, access: _Access, height: int, now_ms: int) -> None:
        did = self._dids.get(access.author)
        if did is None:
            return
        person = self._people[did]
        before = [is_suspended for at, is_suspended in sorted(person.suspended) if at <= height]
        if before and before[-1] and len({at for at, _ in person.suspended if at <= height}) == len(before):
            raise InvariantBroken(f"I-2: {who} to somebody suspended")
        held: dict[str, int] = {}
        for at, role, until_ms in sorted(person.credentials):
            if at <= height:
                held[role] = max(until_ms, held.get(role, 0)) if until_ms else 0
        if held and max(held.values()) <= now_ms:
            raise InvariantBroken(f"I-2: {who} to somebody without a valid credential")

    def _collect(self, share: Share) -> None:
        """Open it as the reader would; what does not open, or is no share, leaks nothing."""
        if share.sharing[0]:
            self._collect_image(share)
        else:
            self._collect_dealt(share)

    def _collect_dealt(self, share: Share) -> None:
        """A share of a one-time secret, which its capsule proves."""
        secret, sealed = self._secrets.get(share.reader), self._sealed.get(share.ref)
        table = share.sharing[1]
        try:
            if secret is None or sealed is None:
                raise Unreadable("a share for nobody's key, or of nobody's record")
            index = self._deposits.index_of(self._validators[share.node], table)
            access = (share.access_id, share.reader)
            context = curve.share_context(sealed.label, share.capsule, access, index, table)
            opened = curve.unseal(secret, share.sealed, context)
            found = self._deposits.share_in(opened, share.capsule, index)
        except Unreadable as error:
            if share.node not in self.liars:
                raise InvariantBroken(f"I-5: node {share.node} released no share of its record: {error}") from error
            return
        self._dealt[share.ref][index] = found
        self._released[share.node].add(share.access_id)

    def _collect_image(self, share: Share) -> None:
        secret, sealed = self._secrets.get(share.reader), self._sealed.get(share.ref)
        image = None
        if secret is not None and sealed is not None:
            access = (share.access_id, share.reader)
            index = self._index[share.node]
            context = curve.share_context(sealed.label, share.capsule, access, index, share.sharing[1])
            image = curve.unseal(secret, share.sealed, context)
        is_liar = share.node in self.liars
        own = self._of_liars.get((share.node, share.sharing)) if is_liar else self._ever[share.sharing].get(share.node)
        if image is None or sealed is None:
            if not is_liar:
                raise InvariantBroken(f"I-5: what node {share.node} released does not open with the reader's key")
            return
        try:
            point, u = curve.image_in(image), curve.parts_of(sealed.capsule)[0]
        except Unreadable as error:
            if not is_liar:
                raise InvariantBroken(f"I-1: node {share.node} released what is no share: {error}") from error
            return
        if own is None or curve.times(int.from_bytes(own, "little"), u) != point:
            if is_liar:
                return
            raise InvariantBroken(f"I-10: node {share.node} released a share that is not its own of {share.sharing}")
        self._images[share.ref][share.sharing[1], self._index[share.node]] = point
        self._released[share.node].add(share.access_id)

    # The audit and the end

    def unreported(self) -> set[tuple[int, bytes]]:
        """I-9: (node, access) where a reader holds a share of a node that has told the chain nothing of it."""
        return {
            (node, access)
            for node, accesses in self._released.items()
            for access in accesses
            if (access, self._validators[node]) not in self._reports
        }

    def is_settled(self) -> bool:
        """Whether every entry of the honest is reported."""
        return not any(self._missing(node) for node in self._entries if node not in self.liars)

    def _missing(self, node: int) -> dict[bytes, tuple[int, int]]:
        """By access: (entries, reported), where they differ."""
        written = Counter(access for access, _ in self._entries[node])
        told = {access: self._reports.get((access, self._validators[node]), 0) for access in written}
        return {access: (count, told[access]) for access, count in written.items() if told[access] != count}

    def concluded(self) -> None:
        """The run is over and had time to settle. Raises InvariantBroken (I-3, I-9, I-10)."""
        for share in self._waiting:
            is_known = share.access_id in self._accesses or self._recoveries.began(share.access_id) is not None
            if share.height in self._times and is_known:
                self._judge(share)
        for node in self._entries:
            missing = {} if node in self.liars else self._missing(node)
            if missing:
                raise InvariantBroken(f"I-9: node {node} has entries that the chain does not have: {missing}")
        self._recoveries.concluded(self._times)
        self._deposits.concluded(frozenset(self._validators[node] for node in self.liars))
        suspects = {node for node, _ in self.unreported()}
        if suspects - self.liars:
            raise InvariantBroken(f"I-9: shares of nodes {sorted(suspects - self.liars)} are nowhere in the log")
        self._reached["audit names a secret release"] += len(suspects)
        self._check_sharings()
        for ref in sorted(ref for ref, images in self._images.items() if images)[:CAPSULES_TRIED]:
            self._try_subsets(ref)
        for ref in sorted(ref for ref, dealt in self._dealt.items() if dealt)[:CAPSULES_TRIED]:
            self._try_dealt(ref)

    def _check_sharings(self) -> None:
        """I-10: t shares of a sharing make X, shares of two sharings make nothing, and old ones are gone."""
        t = self._threshold
        for sharing, shares in self._ever.items():
            if sharing not in self._activated:
                continue
            mine = {self._index[node]: share for node, share in shares.items()}
            for indices in combinations(sorted(mine), t):
                if not self._makes_key(sharing[0], {index: mine[index] for index in indices}):
                    raise InvariantBroken(f"I-10: shares {indices} of sharing {sharing} are not those of its key")
            later = self._ever.get((sharing[0], sharing[1] + 1), {})
            newer = {self._index[node]: share for node, share in later.items()}
            self._check_mixed(sharing, mine, newer)
        newest = {key: max(share for epoch, share in self._activated if epoch == key) for key in self._publics}
        for node, disk in self._disks.items():
            old = [sharing for sharing in disk if sharing[1] < newest.get(sharing[0], 0)]
            if old:
                raise InvariantBroken(f"I-10: node {node} still has shares of {old}")

    def _check_mixed(self, sharing: Sharing, old: dict[int, bytes], new: dict[int, bytes]) -> None:
        for indices in combinations(sorted({*old, *new}), self._threshold):
            for some in range(1, len(indices)):
                mixed = {i: (old if at < some else new).get(i) for at, i in enumerate(indices)}
                if all(mixed.values()) and self._makes_key(sharing[0], {i: s for i, s in mixed.items() if s}):
                    raise InvariantBroken(f"I-10: shares of {sharing} and of the next sharing make the key together")
                self._reached["old and new shares tried together"] += all(mixed.values())

    def _makes_key(self, key_epoch: int, shares: dict[int, bytes]) -> bool:
        return curve.base_times(curve.interpolated(shares)) == self._publics[key_epoch]

    def _try_dealt(self, ref: Ref) -> None:
        """I-3 of one-time secrets."""
        sealed, shares = self._sealed[ref], self._dealt[ref]
        for size in range(1, min(self._threshold, len(shares)) + 1):
            for chosen in combinations(sorted(shares), size):
                content = deposit_book.content_of(sealed.capsule, sealed.label, {i: shares[i] for i in chosen})
                if (content is not None) != (size == self._threshold):
                    raise InvariantBroken(f"I-3: dealt shares {chosen} of {ref} open {content is not None}")
                self._reached["too few dealt shares tried"] += size < self._threshold

    def _try_subsets(self, ref: Ref) -> None:
        """I-3: whatever leaked, fewer than t shares of one sharing open nothing, and t open the record."""
        sealed, images = self._sealed[ref], self._images[ref]
        for size in range(1, min(self._threshold, len(images)) + 1):
            for chosen in combinations(sorted(images), size):
                indices = [index for _, index in chosen]
                if len(set(indices)) < size:
                    continue
                secret = curve.combined({index: images[epoch, index] for epoch, index in chosen})
                content = curve.content_of(sealed.capsule, sealed.label, secret)
                is_enough = size == self._threshold and len({epoch for epoch, _ in chosen}) == 1
                if (content is not None) != is_enough:
                    raise InvariantBroken(f"I-3: shares {chosen} of {ref} open {content is not None}")
                self._reached["too few shares tried"] += not is_enough
