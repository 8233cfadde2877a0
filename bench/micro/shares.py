"""`python -m bench.micro shares [--repeat 50]`: what keys in shares cost, in processor time, for 4 to 16 validators.

The median of many calls, each measured by itself: a busy machine makes a processor slower, but not its count of time.
"""

import argparse
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import files
from statistics import median

from p2pledger.chain.validators import faults
from p2pledger.client.ingest import Capsules, Origin, prepare_bundle
from p2pledger.client.records import Custodian, Patient, open_with_key, seal_record
from p2pledger.client.sealing import Algorithm
from p2pledger.health.commitments import RecordRef, check_commitment
from p2pledger.health.release import label_of
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.ids import ChainId, Millis
from p2pledger.threshold import dkg
from p2pledger.threshold.capsule import Label, check_capsule
from p2pledger.threshold.dkg import Ceremony, CeremonyId, Deal
from p2pledger.threshold.group import base_times, random_scalar, times
from p2pledger.threshold.key_release import Access, KeyRelease, ShareHolder, share_context
from p2pledger.threshold.long_term import LongTerm, ReleasedShare
from p2pledger.threshold.one_time import OneTime, OneTimeHolder
from p2pledger.threshold.participant import Participant
from p2pledger.threshold.proofs import prove_equal_logs
from p2pledger.threshold.sealing import BoxSecret, Sealer, encrypt_once, seal

SIZES = (4, 7, 10, 16)
CHAIN = ChainId(sha256(b"bench"))
LABEL = Label("record", CHAIN, b"C" * 16, b"P" * 16, b"B" * 16, 0, 1)
READER_SEED = sha256(b"reader")
READER = BoxSecret(READER_SEED)
ACCESS = Access(b"A" * 16, READER.public)
Row = dict[str, float]


def microseconds(work: Callable[[], object], repeat: int) -> float:
    """The median processor time of one call."""
    taken = []
    for _ in range(repeat):
        began_ns = time.thread_time_ns()
        work()
        taken.append(time.thread_time_ns() - began_ns)
    return median(taken) / 1_000


class Table:
    """A ceremony of n honest seats, step by step."""

    def __init__(self, n: int) -> None:
        self.seats = tuple(sorted(sha256(bytes([number])) for number in range(n)))
        self.id = CeremonyId(1, 0, 0)
        self.people = {seat: Participant(CHAIN, self.id, secrets.token_bytes(32)) for seat in self.seats}
        ceremony = dkg.begin(CHAIN, self.id, self.seats, n - faults(n), Millis(0))
        for seat in self.seats:
            ceremony = dkg.join(ceremony, seat, self.people[seat].box.public)
        self.joined = ceremony.at(0)
        self.deals = {i: self.people[seat].deal(self.joined, seat) for i, seat in enumerate(self.seats, start=1)}
        for i, seat in enumerate(self.seats, start=1):
            ceremony = dkg.deal(ceremony.at(0), seat, self.deals[i])
        self.dealt: Ceremony = ceremony.at(0)
        for seat in self.seats:
            ceremony = dkg.report(ceremony.at(0), seat, ())
        self.reported: Ceremony = ceremony.at(0)

    def ceremony_row(self, repeat: int) -> Row:
        """What the chain and one validator compute in a ceremony."""
        seat = self.seats[0]
        someone = self.people[seat]
        first: Deal = self.deals[1]
        return {
            "deal (validator)": microseconds(lambda: someone.deal(self.joined, seat), repeat),
            "take a deal (contract)": microseconds(lambda: dkg.deal(self.joined, seat, first), repeat),
            "look at all deals (validator)": microseconds(lambda: someone.cheats(self.dealt, seat, self.deals), repeat),
            "joint key of all deals (contract)": microseconds(lambda: dkg.outcome(self.reported, self.deals), repeat),
            "own share (validator)": microseconds(
                lambda: someone.holder(self.reported, seat, self.deals, {}), max(1, repeat // 5)
            ),
        }

    def long_term(self) -> tuple[LongTerm, list[ShareHolder]]:
        release = LongTerm(dkg.outcome(self.reported, self.deals))
        return release, [self.people[seat].holder(self.reported, seat, self.deals, {})[0] for seat in self.seats]


def one_time(n: int) -> tuple[KeyRelease, list[ShareHolder]]:
    boxes = [BoxSecret(secrets.token_bytes(32)) for _ in range(n)]
    release = OneTime([box.public for box in boxes], n - faults(n))
    return release, [OneTimeHolder(release, box) for box in boxes]


def liar(capsule: bytes) -> bytes:
    """Holder 1's sealed share, of another secret and with a proof of another secret: only its proof shows that."""
    context = share_context(capsule, LABEL, ACCESS, 1, 0)
    secret = random_scalar(secrets.token_bytes)
    u = check_capsule(capsule, LABEL)
    image = times(secret, u)
    proof = prove_equal_logs(secret, base_times(secret), u, image, context, secrets.token_bytes)
    return seal(ACCESS.reader, encode(ReleasedShare(image, proof)), context, secrets.token_bytes)


def record_row(release: KeyRelease, holders: list[ShareHolder], repeat: int) -> Row:
    """What one record costs its writer, one validator and its reader.

    In a request by itself: of more, all but the first save the products of one X25519 key with another.
    """
    key, random = secrets.token_bytes(32), secrets.token_bytes
    capsule = release.wrap(key, LABEL, random)
    shares = {holder.index: holder.release(capsule, LABEL, ACCESS, random) for holder in holders[: release.threshold]}
    assert release.open(capsule, LABEL, ACCESS, READER, shares).content_key == key
    row: Row = {
        "capsule, bytes": len(capsule),
        "wrap (writer)": microseconds(lambda: release.wrap(key, LABEL, random), repeat),
        "check and release (validator)": microseconds(
            lambda: holders[0].release(capsule, LABEL, ACCESS, random), repeat
        ),
        "open (reader)": microseconds(
            lambda: release.open(capsule, LABEL, ACCESS, BoxSecret(READER_SEED), shares), repeat
        ),
    }
    if isinstance(release, LongTerm):
        lied = {
            **{holder.index: holder.release(capsule, LABEL, ACCESS, random) for holder in holders},
            1: liar(capsule),
        }
        assert release.open(capsule, LABEL, ACCESS, READER, lied).wrong == (1,)
        row["open in spite of a liar (reader)"] = microseconds(
            lambda: release.open(capsule, LABEL, ACCESS, BoxSecret(READER_SEED), lied), repeat
        )
    return row


def sealing_rate() -> float:
    """Megabytes a second that a record's content is sealed with."""
    data, key = secrets.token_bytes(1 << 20), secrets.token_bytes(32)
    return (1 << 20) / microseconds(lambda: encrypt_once(key, data, b""), 20)


def chart_row(release: LongTerm, holders: list[ShareHolder]) -> Row:
    """A chart of 182 records: what its custodian and its reader compute, in processor time of one thread."""
    custodian, patient = Custodian.of_box_seed(b"C" * 16, sha256(b"box")), Patient(b"P" * 16, READER.public)
    origin = Origin(custodian, capsules=Capsules.to_key(release.key, CHAIN))
    name = next(path for path in (files("p2pledger") / "samples" / "bundles").iterdir() if "Fidel_Bins" in path.name)
    bundle = name.read_bytes()
    began_ns = time.thread_time_ns()
    prepared = prepare_bundle(bundle, origin, patient)
    taken_ns = time.thread_time_ns() - began_ns
    manifest, some = prepared.manifest, holders[: release.threshold]
    labels = {one.index: label_of(manifest.ref(one.index), b"P" * 16, b"C" * 16, CHAIN, 1) for one in manifest.entries}
    capsules = {one.index: prepared.objects[one.capsule or b""] for one in manifest.entries}
    shares: dict[int, dict[int, bytes]] = {index: {} for index in capsules}
    for holder in some:
        sealer = Sealer(ACCESS.reader, secrets.token_bytes)
        for index, capsule in capsules.items():
            sealed = holder.release(capsule, labels[index], ACCESS, secrets.token_bytes, sealer)
            shares[index][holder.index] = sealed
    began_ns = time.thread_time_ns()
    for entry in manifest.entries:
        index, ref = entry.index, manifest.ref(entry.index)
        key = release.open(capsules[index], labels[index], ACCESS, READER, shares[index]).content_key
        data = open_with_key(prepared.objects[entry.object], ref, manifest.pid, manifest.custodian, key)
        check_commitment(ref, entry.commitment, entry.salt, entry.media_type, data)
    opened_ns = time.thread_time_ns() - began_ns
    return {
        "records": len(manifest.entries),
        "take in: parse, seal, capsules (custodian)": taken_ns / 1_000,
        "open, decrypt, compare (reader)": opened_ns / 1_000,
        "a record of it (reader)": opened_ns / 1_000 / len(manifest.entries),
    }


def record_sealing_rate() -> float:
    """Megabytes a second that a record of 1 MiB is sealed with, boxes and name included; the least of the ciphers."""
    data, rates = secrets.token_bytes(1 << 20), []
    for algorithm in Algorithm:
        custodian = replace(Custodian.of_box_seed(b"C" * 16, sha256(b"box")), algorithm=algorithm)
        patient, ref = Patient(b"P" * 16, READER.public), RecordRef(b"B" * 16, 0)
        rates.append((1 << 20) / microseconds(partial(seal_record, data, ref, custodian, patient), 20))
    return min(rates)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro shares", description=__doc__)
    parser.add_argument("--repeat", type=int, default=50)
    repeat: int = parser.parse_args(arguments).repeat
    tables = {n: Table(n) for n in SIZES}
    sections = {
        "long-term secrets, a record": {n: record_row(*tables[n].long_term(), repeat) for n in SIZES},
        "one-time secrets, a record": {n: record_row(*one_time(n), repeat) for n in SIZES},
        "a ceremony": {n: tables[n].ceremony_row(max(1, repeat // 5)) for n in SIZES},
        "a chart of 182 records, long-term secrets": {n: chart_row(*tables[n].long_term()) for n in SIZES},
    }
    for title, columns in sections.items():
        print(f"\n| {title} (µs) | " + " | ".join(f"n = {n}" for n in SIZES) + " |")
        print("|---" * (len(SIZES) + 1) + "|")
        for name in columns[SIZES[0]]:
            print(f"| {name} | " + " | ".join(f"{columns[n][name]:,.0f}" for n in SIZES) + " |")
    print(f"\nsealing of content (XChaCha20-Poly1305): {sealing_rate():,.0f} MB/s")
    print(f"sealing of a record of 1 MiB, the slower cipher: {record_sealing_rate():,.0f} MB/s")
