"""Certificates as an attacker would make them."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from p2pledger.primitives.crypto import SigningKey


def self_signed_ca(key: SigningKey) -> bytes:
    """A member's certificate as `make_certificate` makes it, but for CA:TRUE."""
    return _sign(key.public, key.public.hex(), key, is_ca=True)


def mint(issuer: SigningKey, key: SigningKey, name: str | None = None) -> bytes:
    """A certificate of `key`, called `name` (default: its own), signed by `issuer` as if that were a CA."""
    return _sign(key.public, name or key.public.hex(), issuer, is_ca=False)


def _sign(public: bytes, name: str, issuer: SigningKey, is_ca: bool) -> bytes:
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer.public.hex()))
        .public_key(Ed25519PublicKey.from_public_bytes(public))
        .serial_number(4711)
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(Ed25519PrivateKey.from_private_bytes(issuer.seed), None)
    )
    return certificate.public_bytes(serialization.Encoding.DER)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
