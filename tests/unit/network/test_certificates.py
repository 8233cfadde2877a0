"""A certificate is its key and nothing else."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from p2pledger.network.certificates import (
    certificate_der,
    certificate_pem,
    check_certificate,
    make_certificate,
    node_id_of,
)
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import NodeId
from tests.network.forgery import mint, self_signed_ca

KEY = SigningKey(bytes(range(32)))
OTHER = SigningKey(bytes(32))
NODE = NodeId(KEY.public)


def test_the_same_seed_gives_the_same_bytes() -> None:
    """The DER that the genesis registers can be made again from the key alone."""
    der = make_certificate(KEY)
    assert der == make_certificate(SigningKey(KEY.seed))
    assert node_id_of(der) == KEY.public
    assert certificate_der(certificate_pem(der)) == der
    check_certificate(der, NODE)


def test_a_certificate_of_another_node_is_refused() -> None:
    """A card cannot claim a node with somebody else's certificate."""
    with pytest.raises(InvalidInput, match=f"{OTHER.public.hex()} where node {KEY.public.hex()} was expected"):
        check_certificate(make_certificate(OTHER), NODE)


def test_a_member_cannot_register_a_ca() -> None:
    """With CA:TRUE a member could mint certificates that the others' trust stores accept."""
    with pytest.raises(InvalidInput, match="must say CA:FALSE"):
        check_certificate(self_signed_ca(KEY), NODE)


def test_a_certificate_signed_by_somebody_else_is_refused() -> None:
    """What stands in a trust store vouches for itself only."""
    with pytest.raises(InvalidInput, match="must name exactly that node"):
        check_certificate(mint(OTHER, KEY), NODE)


@pytest.mark.parametrize("data", [b"", b"\x30\x03\x02\x01\x01", b"x" * 2000, make_certificate(KEY)[:-1]])
def test_other_bytes_are_refused(data: bytes) -> None:
    """No parser error but InvalidInput comes out."""
    with pytest.raises(InvalidInput):
        check_certificate(data, NODE)


def test_other_kinds_of_keys_are_refused() -> None:
    """A node id is an Ed25519 key, whatever else TLS would take."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, KEY.public.hex())])
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    certificate = (
        builder.serial_number(1)
        .not_valid_before(moment)
        .not_valid_after(moment + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(InvalidInput, match="where Ed25519 was expected"):
        node_id_of(certificate.public_bytes(serialization.Encoding.DER))


def test_what_is_no_pem_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not a certificate in PEM"):
        certificate_der("-----BEGIN NOTHING-----")
