"""The daemon as its operator meets it: signals, exit statuses, and words that say what to repair."""

import shutil
import signal
import socket
import subprocess
import sys

import pytest
import trio

from p2pledger.node.home import Layout
from tests.node.health import agree, hospital, load

pytestmark = pytest.mark.process

BAD_CONFIG = 78


async def start_and_end(home) -> tuple[int, str]:
    """(exit status, what it said) of a daemon that must not run."""
    command = [sys.executable, "-m", "p2pledger", "start", "--home", str(home)]
    with trio.fail_after(60):
        done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_signal_under_load_ends_a_node_with_status_0(consortium, number):
    """It finishes its commit and leaves; the three others go on, and what it holds is a prefix of their chain."""
    cluster = consortium(4)
    await cluster.start()
    await cluster.wait_ready()
    leaving = cluster.names[-1]
    async with hospital(cluster, nodes=cluster.names[:-1]) as at, load(at, 50) as running:
        await running.more(100)
        cluster.member(leaving).process.send_signal(number)
        assert await cluster.wait_end(leaving) == 0
        await running.more(100)
    assert {"event": "node_stopping", "signal": int(number)}.items() <= list(cluster.events(leaving))[-1].items()
    await agree(cluster, running.receipts)


async def test_signal_usr1_shows_tasks_and_queues_and_changes_nothing(consortium):
    """An operator may look inside at any time."""
    cluster = consortium(1)
    await cluster.start()
    await cluster.wait_ready()
    member = cluster.member(cluster.names[0])
    member.process.send_signal(signal.SIGUSR1)
    with trio.fail_after(30):
        while "_keep_posting" not in member.last_words(100):
            await trio.sleep(0.05)
    async with hospital(cluster) as at:
        await at.issue()
    await cluster.stop()


async def test_a_second_daemon_on_one_home_is_turned_away(consortium):
    """Two processes with one key would sign against each other; the first one does not even notice."""
    cluster = consortium(1)
    await cluster.start()
    await cluster.wait_ready()
    member = cluster.member(cluster.names[0])
    status, words = await start_and_end(member.home)
    assert status == BAD_CONFIG
    assert str(member.process.pid) in words, "the one who holds the lock is named"
    async with hospital(cluster) as at:
        await at.issue()
    await cluster.stop()


@pytest.fixture
def home(consortium):
    """The home of one of two members; nothing runs."""
    cluster = consortium(2)
    return cluster.member(cluster.names[0])


def _open_to_others(member, consortium):
    member.layout.key("consensus").chmod(0o644)
    return "0644", f"chmod 600 {member.layout.key('consensus')}"


def _without_key(member, consortium):
    member.layout.key("node").unlink()
    return "node.key", "missing"


def _foreign_genesis(member, consortium):
    other = consortium(2)
    shutil.copy(Layout(other.homes[other.names[0]]).genesis, member.layout.genesis)
    return "foreign", other.founding.chain.hex()


def _unknown_setting(member, consortium):
    member.layout.config.write_text("[p2p]\nlisen = '127.0.0.1:7420'\n")
    return "p2p.lisen", "not a known setting"


def _bad_value(member, consortium):
    member.layout.config.write_text("[client]\nlisten = '127.0.0.1:99999'\n")
    return "client.listen", "127.0.0.1:99999"


@pytest.mark.parametrize("spoil", [_open_to_others, _without_key, _foreign_genesis, _unknown_setting, _bad_value])
async def test_a_home_that_must_not_start_is_named_and_status_78(home, consortium, spoil):
    """One line on stderr with the file or setting, its value, and the rule; never a traceback."""
    expected = spoil(home, consortium)
    status, words = await start_and_end(home.home)
    assert status == BAD_CONFIG, words
    assert all(word in words for word in expected), words
    assert "Traceback" not in words


@pytest.mark.parametrize("name", ["p2p", "client", "ops"])
async def test_a_port_that_is_taken_is_named_and_status_78(home, name):
    """So that a supervisor does not restart it for ever."""
    address = getattr(home.created, name)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((address.host, address.port))
        taken.listen()
        status, words = await start_and_end(home.home)
    assert status == BAD_CONFIG, words
    assert str(address) in words, words


async def test_an_emptied_journal_is_not_signed_with(consortium):
    """T31: who has signed and lost its memory must not sign again by itself."""
    cluster = consortium(1)
    await cluster.start()
    await cluster.wait_ready()
    async with hospital(cluster) as at:
        await at.issue()
    await cluster.stop()
    member = cluster.member(cluster.names[0])
    shutil.rmtree(member.home / "data")
    status, words = await start_and_end(member.home)
    assert status == BAD_CONFIG, words
    assert "Traceback" not in words
