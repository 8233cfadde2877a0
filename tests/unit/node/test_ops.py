"""The ops port: what it says, and that nothing keeps it from saying it."""

import http.client
import json
import socket
from contextlib import ExitStack

import pytest

from p2pledger.node.config import Address
from p2pledger.node.metrics import make_metrics
from p2pledger.node.ops import STALE_S, THREADS_MAX, Board, Facts, OpsServer, answer
from p2pledger.primitives.errors import ConfigError

LOOPBACK = Address("127.0.0.1", 0)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def board(clock):
    return Board(clock)


def ask(board, target):
    return answer(target, board, make_metrics().registry)


def get(port, target, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, target)
    response = connection.getresponse()
    return response.status, response.read().decode(), response.headers


def test_a_node_that_has_said_nothing_is_alive_but_not_ready(board):
    """Starting is not being ready."""
    assert ask(board, "/livez").status == 200
    assert ask(board, "/readyz").status == 503


def test_ready_means_that_every_check_holds(board):
    """And verbose says which one does not."""
    board.post(Facts({"replayed": True, "quorum": True}))
    assert ask(board, "/readyz").status == 200
    board.post(Facts({"replayed": True, "quorum": False}))
    reply = ask(board, "/readyz?verbose")
    assert reply.status == 503
    assert reply.body.decode().splitlines() == ["[+] alive", "[+] replayed", "[-] quorum", "not ready"]


def test_a_node_without_a_sign_of_life_is_not_alive(board, clock):
    """The loop that should post is stuck; the ops port is not."""
    board.post(Facts({"replayed": True}))
    clock.now += STALE_S
    assert ask(board, "/livez").status == 503
    assert ask(board, "/readyz").status == 503
    board.post(Facts({"replayed": True}))
    assert ask(board, "/livez").status == 200


@pytest.mark.parametrize("target", ["/", "/metricsx", "//livez", "/../etc/passwd", "/livez/..", "*", "http://x/"])
def test_there_is_nothing_else(board, target):
    """Unknown paths are not found."""
    assert ask(board, target).status == 404


@pytest.mark.parametrize("target", ["http://[", "//[x", "/\x00", "?"])
def test_no_target_breaks_it(board, target):
    """Any text has an answer."""
    assert ask(board, target).status in (400, 404)


def test_it_answers_over_http_on_the_port_it_says(board):
    """All four pages, on any free port."""
    metrics = make_metrics()
    metrics.consensus_height.set(42)
    board.post(Facts({"replayed": True}, {"version": "0.1.0", "protocol": 1}))
    with OpsServer(LOOPBACK, board, metrics.registry) as ops:
        assert get(ops.port, "/livez")[:2] == (200, "ok\n")
        assert get(ops.port, "/readyz?verbose")[0] == 200
        assert json.loads(get(ops.port, "/version")[1]) == {"version": "0.1.0", "protocol": 1}
        assert "p2pledger_consensus_height 42.0" in get(ops.port, "/metrics")[1]
        assert get(ops.port, "/livez", "HEAD")[:2] == (200, "")
        assert get(ops.port, "/livez", "POST")[0] == 501


def test_silent_visitors_do_not_keep_others_out_for_ever(board):
    """T3: half-open connections take the few places and no more; when they leave there is room again."""
    with OpsServer(LOOPBACK, board, make_metrics().registry) as ops:
        with ExitStack() as silent:
            for _ in range(THREADS_MAX):
                visitor = silent.enter_context(socket.create_connection(("127.0.0.1", ops.port), timeout=5))
                visitor.sendall(b"GET /livez HTTP/1.0\r\n")
            late = silent.enter_context(socket.create_connection(("127.0.0.1", ops.port), timeout=5))
            assert late.recv(1) == b""  # turned away at once
            visitors = THREADS_MAX
        while visitors:  # their threads end as soon as they see the connections closed
            try:
                assert get(ops.port, "/livez")[0] == 200
                visitors = 0
            except (ConnectionError, http.client.HTTPException):
                visitors = THREADS_MAX


@pytest.mark.parametrize("garbage", [b"\x00" * 64, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000])
def test_garbage_does_not_stop_it(board, garbage):
    """The next visitor is served."""
    with OpsServer(LOOPBACK, board, make_metrics().registry) as ops:
        with socket.create_connection(("127.0.0.1", ops.port), timeout=5) as visitor:
            visitor.sendall(garbage)
        assert get(ops.port, "/livez")[0] == 200


def test_a_port_in_use_is_named(board):
    """As bad configuration, with the address."""
    registry = make_metrics().registry
    with OpsServer(LOOPBACK, board, registry) as ops, pytest.raises(ConfigError, match=str(ops.port)):
        OpsServer(Address("127.0.0.1", ops.port), board, registry)


def test_it_never_listens_beyond_this_machine(board):
    """It has no password."""
    with pytest.raises(ConfigError, match="loopback"):
        OpsServer(Address("0.0.0.0", 0), board, make_metrics().registry)
