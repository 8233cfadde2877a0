"""What operations can say, and what is refused before it is run."""

from enum import IntEnum
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from p2pledger.chain.genesis import OrganisationKind
from p2pledger.execution.evidence import Caught
from p2pledger.health import (
    access,
    break_glass,
    consent,
    deposits,
    directory,
    joint_key,
    log,
    proxies,
    records,
    release,
    release_log,
    release_receipts,
    rules,
)
from p2pledger.health.events import AnyEvent
from p2pledger.health.operations import (
    AccessRequest,
    AnyOperation,
    ConsentRevoke,
    IdentitySuspend,
    actor_commit,
    decode_operations,
)
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import Domain, tagged_hash
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.threshold.dkg import Ceremony, Deal
from p2pledger.threshold.long_term import JointKey
from tests.unit.execution.ledger import id16
from tests.unit.health import policies

STATE = (directory.Organisation, directory.Identity, directory.Credential, directory.KeyOwner, directory.KeyPeriod)
CEREMONIES = (Ceremony, Deal, JointKey, joint_key.ActiveKey, release.ReleaseEntry, release_receipts.Reported)
CONSENT = (consent.Consent, proxies.Proxy, proxies.Deceased, break_glass.BrokenGlass, rules.Rules)
DEPOSITS = (deposits.Announced, deposits.DepositTable, deposits.Deposited)
LOG = (log.LogLine, log.LogHead, release_log.ReleaseLine)
STATE_AND_LOG = (*STATE, *CONSENT, access.Access, records.Batch, *LOG, Caught, *CEREMONIES, *DEPOSITS)


def _free_fields(kind: inspect.Type, path: str) -> list[str]:
    """The paths of all fields under `kind` that could hold text or bytes of any length."""
    match kind:
        case inspect.StrType():
            return [path]
        case inspect.BytesType():
            return [] if kind.max_length is not None and kind.max_length <= 64 else [path]
        case inspect.StructType():
            name = kind.cls.__name__
            return [found for field in kind.fields for found in _free_fields(field.type, f"{name}.{field.name}")]
        case inspect.UnionType():
            return [found for part in kind.types for found in _free_fields(part, path)]
        case inspect.TupleType():
            return [found for part in kind.item_types for found in _free_fields(part, path)]
        case inspect.VarTupleType():
            return _free_fields(kind.item_type, path)
        case inspect.IntType() | inspect.BoolType() | inspect.NoneType() | inspect.LiteralType():
            return []
        case inspect.EnumType(cls) if issubclass(cls, IntEnum):
            return []  # numbers of a closed list
        case _:
            return [f"{path}: {kind}"]


class Chatty(Record, frozen=True):
    """What a schema must not be."""

    note: str
    blob: bytes


def test_no_schema_has_a_free_text_field() -> None:
    """F-29: operations, events and state hold only fixed bytes, numbers, closed codes and organisations' names."""
    assert _free_fields(inspect.type_info(Chatty), "") == ["Chatty.note", "Chatty.blob"], "the scanner sees them"
    found = {
        path for kind in (AnyOperation, AnyEvent, *STATE_AND_LOG) for path in _free_fields(inspect.type_info(kind), "")
    }
    assert found == {"OrganisationRegister.name", "Organisation.name"}


def test_the_longest_code_words_are_listed() -> None:
    """F-29, I-15: these closed words may stand in blocks, so a scan for record text must allow them."""
    words = {
        str(value)
        for kind in (AnyOperation, AnyEvent, *STATE_AND_LOG, OrganisationKind)
        for value in _literals(inspect.type_info(kind))
    }
    assert all(word.isascii() and len(word) <= 16 for word in words)


def _literals(kind: inspect.Type) -> list[Any]:
    parts: list[inspect.Type] = []
    match kind:
        case inspect.LiteralType():
            return list(kind.values)
        case inspect.StructType():
            parts = [field.type for field in kind.fields]
        case inspect.UnionType():
            parts = list(kind.types)
        case inspect.TupleType():
            parts = list(kind.item_types)
        case inspect.VarTupleType():
            parts = [kind.item_type]
        case _:
            return []
    return [value for part in parts for value in _literals(part)]


REQUEST = policies.request_record(
    {
        "pid": "me",
        "basis": None,
        "purpose": "TREAT",
        "actor": ("person", "p1", 1),
        "compartments": [0],
        "classes": [],
        "labels": [],
        "months": None,
        "records": [],
        "authors": [],
        "encounters": [],
        "n_records": 1,
        "reason": None,
    }
)


def test_every_kind_comes_back_as_it_was() -> None:
    """Decoding is the inverse of encoding."""
    operations = (IdentitySuspend(id16("x")), ConsentRevoke(id16("c"), "withdrawn"))
    assert decode_operations(encode(operations)) == operations
    assert decode_operations(encode((REQUEST,))) == (REQUEST,)


def _refused(data: bytes) -> Code:
    with pytest.raises(Rejected) as caught:
        decode_operations(data)
    return caught.value.code


def test_an_access_request_travels_alone() -> None:
    """E_ALONE: its decision must not be undone by an operation beside it."""
    assert _refused(encode((REQUEST, IdentitySuspend(id16("x"))))) == Code.E_ALONE
    assert _refused(encode((IdentitySuspend(id16("x")), REQUEST))) == Code.E_ALONE
    assert _refused(encode((REQUEST, REQUEST))) == Code.E_ALONE


def test_what_is_not_an_operation_is_refused() -> None:
    """Unknown kinds, wrong shapes, too many and none each have their code."""
    suspend = IdentitySuspend(id16("x"))
    assert _refused(b"\x91\x92\x63\x01") == Code.E_UNKNOWN_KIND
    assert _refused(encode((suspend,)) + b"\0") == Code.E_FORMAT
    assert _refused(b"") == Code.E_FORMAT
    assert _refused(b"\x90") == Code.E_FORMAT
    assert _refused(b"\x91\x92\x04\xc4\x01x") == Code.E_FORMAT
    assert _refused(b"\x91" * 60_000) == Code.E_FORMAT
    assert len(decode_operations(encode((suspend,) * 64))) == 64
    assert _refused(encode((suspend,) * 65)) == Code.E_TOO_LARGE
    unlisted = msgspec.structs.replace(REQUEST, purpose="curiosity")  # type: ignore[arg-type]
    assert _refused(encode((unlisted,))) == Code.E_FORMAT


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x91\x92\x7f\x01", Code.E_UNKNOWN_KIND),
        (b"\x91\x92\x63\xc0", Code.E_UNKNOWN_KIND),
        (b"\x91\x9f\x63" + b"\x01" * 14, Code.E_UNKNOWN_KIND),
        (b"\xdc\x00\x10" + b"\x92\x63\x01" * 16, Code.E_UNKNOWN_KIND),
        (b"\x91\x92\x80\x01", Code.E_FORMAT),
        (b"\x91\x92\xc0\x01", Code.E_FORMAT),
        (b"\x91\x8f\x63\x01", Code.E_FORMAT),
        (b"\x91\xa0\x63\x01", Code.E_FORMAT),
        (b"\x91\x92", Code.E_FORMAT),
        (b"\x91", Code.E_FORMAT),
    ],
)
def test_a_number_that_no_operation_has_is_named_as_such(data: bytes, code: Code) -> None:
    """A client of a later version learns that the kind is unknown here; whatever has no number is malformed."""
    assert _refused(data) == code


def test_an_actor_commitment_is_over_salt_kind_and_name() -> None:
    """What wallets of other makers must compute as well."""
    opening = REQUEST.actor_opening
    assert opening is not None and isinstance(REQUEST, AccessRequest)
    expected = tagged_hash(Domain.ACTOR, encode((opening.salt, "person", opening.handle)))
    assert actor_commit(opening) == expected
