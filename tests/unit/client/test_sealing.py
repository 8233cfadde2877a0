"""Records and manifests under either cipher (health rule 3.3)."""

from itertools import permutations

import pytest
from msgspec.structs import replace

from p2pledger.client.records import Custodian, Patient, _Sealed, open_record, seal_record
from p2pledger.client.sealing import Algorithm, BoxKey, decrypt, encrypt
from p2pledger.health.commitments import RecordRef
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.errors import InvalidInput
from tests.unit.execution.ledger import hash32, id16

KEY, CONTEXT, DATA = hash32("key"), b"context", b'{"resourceType":"AllergyIntolerance"}'
REF = RecordRef(id16("batch"), 0)
PATIENT = BoxKey(hash32("patient box"))
# What a manifest is asked for when a record is opened.
MANIFEST = type("Manifest", (), {"pid": id16("patient"), "custodian": id16("Berg")})()


def custodian(algorithm: Algorithm) -> Custodian:
    return Custodian(id16("Berg"), BoxKey(hash32("custodian box")), hash32("handles"), algorithm)


def sealed_with(algorithm: Algorithm) -> bytes:
    patient = Patient(id16("patient"), PATIENT.public)
    return seal_record(DATA, REF, custodian(algorithm), patient)[1]


@pytest.mark.parametrize("algorithm", Algorithm)
def test_what_is_encrypted_opens_with_all_of_it_alone(algorithm: Algorithm) -> None:
    nonce, ciphertext = encrypt(KEY, DATA, CONTEXT, algorithm)
    assert decrypt(KEY, nonce, ciphertext, CONTEXT, algorithm) == DATA
    for key, used, text, context in (
        (hash32("another"), nonce, ciphertext, CONTEXT),
        (KEY, bytes(len(nonce)), ciphertext, CONTEXT),
        (KEY, nonce + b"\0", ciphertext, CONTEXT),
        (KEY, nonce, ciphertext[:-1] + bytes([ciphertext[-1] ^ 1]), CONTEXT),
        (KEY, nonce, ciphertext, b"another"),
        (KEY, nonce, b"", CONTEXT),
    ):
        with pytest.raises(InvalidInput):
            decrypt(key, used, text, context, algorithm)


@pytest.mark.parametrize(("one", "other"), list(permutations(Algorithm)))
def test_one_cipher_is_not_taken_for_the_other(one: Algorithm, other: Algorithm) -> None:
    nonce, ciphertext = encrypt(KEY, DATA, CONTEXT, one)
    with pytest.raises(InvalidInput):
        decrypt(KEY, nonce, ciphertext, CONTEXT, other)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_custodian_and_patient_open_a_record_whatever_its_cipher(algorithm: Algorithm) -> None:
    sealed = sealed_with(algorithm)
    assert decode(_Sealed, sealed, 4096).algorithm == algorithm
    for reader in (PATIENT, custodian(algorithm).box):
        assert open_record(sealed, REF, MANIFEST, reader) == DATA


def test_the_number_of_the_cipher_is_bound() -> None:
    """Changed, or unknown, it opens nothing."""
    parts = decode(_Sealed, sealed_with(Algorithm.XCHACHA20_POLY1305), 4096)
    with pytest.raises(InvalidInput):
        open_record(encode(replace(parts, algorithm=Algorithm.AES_256_GCM)), REF, MANIFEST, PATIENT)
    unknown = encode([3, parts.nonce, parts.ciphertext, parts.keys])
    with pytest.raises(InvalidInput):
        open_record(unknown, REF, MANIFEST, PATIENT)
