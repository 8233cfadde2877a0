"""F-22: no single key reads a record, forges a consent or moves a member; each kind of key is tried at each deed."""

from typing import get_args

import pytest

from p2pledger.health.vocabulary import IdentityKind
from p2pledger.node.home import KEY_NAMES
from p2pledger.primitives.errors import Code
from tests.compromise import DEEDS, DOCUMENT, KINDS, document, outcomes

PERSON = {"rotate the person's own key"}
MEMBER = {"see the patient's log", "see all state", "register a sham practitioner", "rotate its organisation's key"}
CAN: dict[str, set[str]] = {
    "patient: signing": {
        "grant a consent in the patient's name",
        "take a consent back",
        "name a proxy of the patient",
        "read as the patient",
        "see the patient's log",
        "rotate the patient's key",
        "veto a recovery of the patient",
        *PERSON,
    },
    "patient: box": {"open a sealed record of the vault"},
    "guardian: signing, with its card": set(),
    "practitioner: signing": {"read what a consent opens to the doctor", "rotate the doctor's key", *PERSON},
    "practitioner: box": set(),
    "researcher: signing": PERSON,
    "auditor: signing": PERSON,
    "device: signing": PERSON,
    "service: signing": PERSON,
    "custodian: account": {"commit false records", *MEMBER},
    "reader's employer: account": {
        "read, through a sham, what a consent opens to its organisation",
        "stop the doctor",
        "give the doctor another role",
        *MEMBER,
    },
    "uninvolved member: account": MEMBER,
    "custodian: box": {"open a sealed record of the vault"},
    "validator: consensus": {"cast a validator's vote"},
    "node: transport": {"speak as a member's node", "announce a deposit key as a validator"},
    "reader: ephemeral": set(),
    "record: content key": {"open the one record of this key"},
    "holder: share of a joint key": set(),
    "holder: deposit key": set(),
    "nobody: a key of one's own": set(),
}
"""What each key alone is for, written down by hand; everything else must be refused."""


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_what_a_key_alone_can_do(kind: str) -> None:
    """F-22: exactly this."""
    assert {deed for deed, code in outcomes()[kind].items() if code == Code.OK} == CAN[kind]


def test_every_kind_of_key_is_tried() -> None:
    """Every kind of identity, and every key that lies in a member's home."""
    names = {kind.name for kind in KINDS}
    assert all(f"{kind}: signing" in names for kind in get_args(IdentityKind))
    assert set(KEY_NAMES) == {"account", "consensus", "node", "box"}
    assert {"custodian: account", "custodian: box", "validator: consensus", "node: transport"} <= names


def test_every_deed_can_be_done_by_somebody_or_by_no_single_key() -> None:
    """A deed that nobody manages might be tried wrongly; these are the ones that need several hands."""
    done = {deed for found in outcomes().values() for deed, code in found.items() if code == Code.OK}
    assert {deed.name for deed in DEEDS} - done == {
        "start a recovery of the patient",
        "finish a recovery before its delay is over",
        "freeze the patient",
        "put guardians of its own in the others' place at once",
        "declare the patient dead",
        "read what no consent opens",
        "read, through a sham, what a consent opens to the doctor",
        "open a capsule of the joint key",
        "open a one-time secret",
        "revoke and replace the doctor's key",
        "stop the patient",
        "suspend a member",
        "resume or rekey a member",
        "admit a member",
        "make a block final",
    }


def test_no_internal_error_passes_for_a_refusal() -> None:
    refusals = {code for found in outcomes().values() for code in found.values()}
    assert Code.E_INTERNAL not in refusals and Code.E_FORMAT not in refusals


def test_the_document_is_what_the_trials_say() -> None:
    """`python -m tests.compromise` writes it."""
    assert DOCUMENT.read_text() == document(), "run python -m tests.compromise"
