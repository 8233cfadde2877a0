"""Where everything stands in the state, byte for byte: other programs prove things about these keys."""

from p2pledger.health import keys
from p2pledger.primitives.crypto import sha256

A, B, ACCOUNT = b"a" * 16, b"b" * 16, b"k" * 32


def test_a_key_is_its_prefix_and_what_it_is_about() -> None:
    """As the table in health/keys.py says."""
    assert keys.organisation(A) == b"\x10" + A
    assert keys.organisation_name("Höhe") == b"\x11" + sha256("Höhe".encode())
    assert keys.key_owner(ACCOUNT) == b"\x12" + ACCOUNT
    assert keys.identity(A) == b"\x13" + A
    assert keys.credential(A, "nurse") == b"\x14" + A + b"nurse" + bytes(11)
    assert keys.RULES == b"\x15"
    assert keys.key_period(A, 258) == b"\x16" + A + b"\0\0\x01\x02"
    assert keys.batch(B) == b"\x20" + B
    assert keys.consent(A, B) == b"\x30" + A + B
    assert keys.consent_pid(B) == b"\x31" + B
    assert keys.consent_count(A) == b"\x32" + A
    assert keys.proxy(A, B) == b"\x33" + A + B
    assert keys.proxy_for(B, A) == b"\x34" + B + A
    assert keys.deceased(A) == b"\x35" + A
    assert keys.access(B) == b"\x40" + B
    assert keys.broken_glass(B) == b"\x41" + B
    assert keys.review_due(258, B) == b"\x42" + bytes(6) + b"\x01\x02" + B
    assert keys.organisation_rate(A) == b"\x43" + A
    assert keys.person_rate(A) == b"\x44" + A
    assert keys.refusals(ACCOUNT) == b"\x45" + ACCOUNT
    assert keys.log_head(A) == b"\x50" + A
    assert keys.log_line(A, 258) == b"\x51" + A + bytes(6) + b"\x01\x02"
    assert keys.release_line(A, 258) == b"\x52" + A + bytes(6) + b"\x01\x02"


def test_what_belongs_together_has_a_common_prefix() -> None:
    """Credentials of an identity, consents and log lines of a patient are read by it."""
    assert keys.credential(A, "nurse").startswith(keys.credentials(A))
    assert keys.key_period(A, 1).startswith(keys.key_periods(A))
    assert keys.consent(A, B).startswith(keys.consents(A))
    assert keys.proxy(A, B).startswith(keys.proxies(A))
    assert keys.log_line(A, 1).startswith(keys.log_lines(A))
