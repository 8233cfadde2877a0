"""Transport certificates: a node key in the clothes that TLS asks for.

A certificate says nothing but the key: self-signed, the common name is the key in hexadecimal, not a CA (a member
whose certificate were one could mint others), valid for as long as the chain may live. All of it is fixed, so the
same seed always gives the same DER, and that DER is what the genesis registers.
"""

import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import NodeId

CERTIFICATE_BYTES_MAX = 1024
"""Ours have about 350 bytes; 50 of them must fit into a genesis."""
_FROM = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_UNTIL = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)
"""Keys end by a transaction that removes them, not by a date on which a hospital's clock may disagree."""


def make_certificate(key: SigningKey) -> bytes:
    """The DER of the certificate of a node key; the same bytes every time."""
    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, key.public.hex())])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(int.from_bytes(sha256(key.public)[:8], "big") >> 1 or 1)
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, None)
    )
    return certificate.public_bytes(serialization.Encoding.DER)


def node_id_of(der: bytes) -> NodeId:
    """The raw Ed25519 key that a certificate carries; raises InvalidInput."""
    return NodeId(_key(_load(der)).public_bytes_raw())


def check_certificate(der: bytes, node: NodeId) -> None:
    """Raises InvalidInput unless `der` may stand in a trust store for `node`: its key, self-signed, not a CA."""
    certificate = _load(der)
    key = _key(certificate)
    if key.public_bytes_raw() != node:
        raise InvalidInput(f"certificate of key {key.public_bytes_raw().hex()} where node {node.hex()} was expected")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise InvalidInput(f"certificate of node {node.hex()} does not say whether it is a CA: {error}") from error
    if constraints.value.ca or not constraints.critical:
        raise InvalidInput(f"certificate of node {node.hex()} must say CA:FALSE, critically")
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [node.hex()] or certificate.issuer != certificate.subject:
        raise InvalidInput(f"certificate of node {node.hex()} must name exactly that node, twice")
    try:
        key.verify(certificate.signature, certificate.tbs_certificate_bytes)
    except InvalidSignature as error:
        raise InvalidInput(f"certificate of node {node.hex()} is not signed by its own key") from error


def certificate_pem(der: bytes) -> str:
    """The same certificate as text."""
    return _load(der).public_bytes(serialization.Encoding.PEM).decode()


def certificate_der(pem: str) -> bytes:
    """The DER inside a PEM text; raises InvalidInput."""
    try:
        return x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)
    except ValueError as error:
        raise InvalidInput(f"not a certificate in PEM: {error}") from error


def key_pem(key: SigningKey) -> str:
    """The private key as PKCS#8 text, for the TLS library. Secret."""
    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _load(der: bytes) -> x509.Certificate:
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise InvalidInput(f"certificate of {len(der)} bytes is longer than the limit of {CERTIFICATE_BYTES_MAX}")
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise InvalidInput(f"not a certificate in DER: {error}") from error


def _key(certificate: x509.Certificate) -> Ed25519PublicKey:
    try:
        key = certificate.public_key()
    except ValueError as error:
        raise InvalidInput(f"certificate with an unusable key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidInput(f"certificate with a {type(key).__name__} where Ed25519 was expected")
    return key
