"""Clocks that are wrong by years (T34): keys end by transactions, not by dates."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.system

_HANDSHAKE = """
import ssl, time
from p2pledger.network.certificates import make_certificate
from p2pledger.network.tls import peer_contexts
from p2pledger.primitives.crypto import SigningKey

keys = [SigningKey(bytes([i]) * 32) for i in (1, 2)]
certificates = [make_certificate(key) for key in keys]
accepting = peer_contexts(keys[0], certificates[0], certificates)[0]
dialing = peer_contexts(keys[1], certificates[1], certificates)[1]
to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
server = accepting.wrap_bio(to_server, to_client, server_side=True)
client = dialing.wrap_bio(to_client, to_server)
waiting = [client, server]
while waiting:
    for side in list(waiting):
        try:
            side.do_handshake()
            waiting.remove(side)
        except ssl.SSLWantReadError:
            pass
print(time.gmtime().tm_year, client.version())
"""


def handshake_at(date: str) -> tuple[int, str]:
    done = subprocess.run(
        ["faketime", date, sys.executable, "-c", _HANDSHAKE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.strip() or done.stderr


@pytest.mark.parametrize("year", [2020, 2026, 2038, 2069, 2119])
def test_links_come_up_whatever_a_reasonable_clock_says(year: int) -> None:
    """A hundred years of validity: no certificate ends before its key is removed."""
    assert handshake_at(f"{year}-06-01 00:00:00") == (0, f"{year} TLSv1.3")


@pytest.mark.parametrize("year", [1970, 2019, 2121])
def test_a_clock_outside_the_century_is_refused_by_tls(year: int) -> None:
    """A machine whose clock stands at its birth must be set first; docs/operations.md says so."""
    status, words = handshake_at(f"{year}-06-01 00:00:00")
    assert status != 0
    assert "CERTIFICATE_VERIFY_FAILED" in words
