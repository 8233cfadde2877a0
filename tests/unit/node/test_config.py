"""Settings: precedence, and mistakes that are named."""

import msgspec
import pytest

from p2pledger.chain.genesis import Parameters
from p2pledger.node.config import _SECTIONS, Address, load_config
from p2pledger.primitives import limits
from p2pledger.primitives.errors import ConfigError


def load(tmp_path, text="", environ=None, flags=None):
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load_config(path, environ or {}, flags)


def test_without_a_file_the_defaults_hold(tmp_path):
    """A home needs no config.toml."""
    config = load_config(tmp_path / "config.toml", {})
    assert (config.p2p_listen.port, config.client_listen.port, config.ops_listen.port) == (7420, 7421, 7422)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path):
    """Precedence, one layer after the other."""
    file, environ = "[client]\nconnections_max = 2", {"P2PLEDGER_CLIENT__CONNECTIONS_MAX": "3"}
    assert load(tmp_path).client.connections_max == 256
    assert load(tmp_path, file).client.connections_max == 2
    assert load(tmp_path, file, environ).client.connections_max == 3
    assert load(tmp_path, file, environ, {"client.connections_max": 4}).client.connections_max == 4
    assert load(tmp_path, file, environ, {"client.connections_max": None}).client.connections_max == 3


def test_peers_come_from_the_environment_too(tmp_path):
    """name=host:port, with commas between."""
    environ = {"P2PLEDGER_P2P__PEERS": "City Hospital=10.0.0.1:7420, aa=[::1]:7430"}
    assert load(tmp_path, environ=environ).p2p_peers == {
        "City Hospital": Address("10.0.0.1", 7420),
        "aa": Address("::1", 7430),
    }


def test_variables_without_a_section_are_not_settings(tmp_path):
    """P2PLEDGER_HOME and strangers' variables are left alone."""
    assert load(tmp_path, environ={"P2PLEDGER_HOME": "/x", "OTHER__KEY": "1"}) == load(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[p2p]\nlisen = ':1'", ["p2p.lisen", "not a known setting"]),
        ("[p3p]\n", ["config.toml", "p3p", "not a known setting"]),
        ("[verify]\nthreads = 65", ["verify.threads = 65", "<= 64"]),
        ("[verify]\nthreads = true", ["verify.threads", "int"]),
        ("[node]\nlog_level = 'loud'", ["node.log_level = 'loud'"]),
        ("[p2p]\nlisten = 'nowhere'", ["p2p.listen", "'nowhere'", "host:port"]),
        ("[p2p]\nlisten = 'a:70000'", ["p2p.listen", "'a:70000'"]),
        ("[p2p.peers]\nx = 'a:0'", ["p2p.peers.x", "port 0"]),
        ("[p2p.peers]\nx = 7", ["p2p.peers", "str"]),
        ("[ops]\nlisten = '0.0.0.0:7422'", ["ops.listen", "0.0.0.0:7422", "loopback"]),
        (f"[mempool]\ntransactions_max = {limits.MEMPOOL_TRANSACTIONS_MAX + 1}", ["mempool.transactions_max"]),
        ("p2p = 3", ["p2p = 3"]),
        ("[p2p", ["not TOML"]),
    ],
)
def test_a_mistake_in_the_file_is_named_with_path_and_value(tmp_path, text, words):
    """Dotted path, value and rule stand in the message."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("P2PLEDGER_P2P__LISEN", "a:1"),
        ("P2PLEDGER_P3P__LISTEN", "a:1"),
        ("P2PLEDGER_VERIFY__THREADS", "many"),
        ("P2PLEDGER_P2P__PEERS", "nobody"),
    ],
)
def test_a_mistake_in_the_environment_names_its_variable(tmp_path, variable, value):
    """The variable is blamed, not the file."""
    with pytest.raises(ConfigError, match=variable):
        load(tmp_path, environ={variable: value})


def test_an_unknown_flag_is_refused(tmp_path):
    """A flag that names no setting is a mistake of ours, and loud."""
    with pytest.raises(ConfigError, match=r"client\.nothing"):
        load(tmp_path, flags={"client.nothing": 1})


def test_nothing_that_all_must_agree_on_is_a_local_setting():
    """T35: no name of a genesis parameter is a setting."""
    settings = {field.name for section in _SECTIONS.values() for field in msgspec.structs.fields(section)}
    assert settings.isdisjoint(field.name for field in msgspec.structs.fields(Parameters))


@pytest.mark.parametrize("text", ["", "a", ":1", "a:", "a:b", "a:65536", "::1:80", "[::1]", "a b:1", "a:1\n", "[g]:1"])
def test_what_is_no_address_is_refused(text):
    """host:port and [v6]:port, nothing else."""
    with pytest.raises(ConfigError, match="host:port"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:7420", "node-1.example.org:65535"])
def test_addresses_are_written_as_they_were_read(text):
    """parse and str are inverse."""
    assert str(Address.parse(text)) == text


def test_one_processor_is_left_to_the_node():
    """-1 leaves one processor free but always checks in at least one thread; 0 means inline."""
    assert [load_config_threads(-1, n) for n in (1, 2, 8)] == [1, 1, 7]
    assert load_config_threads(0, 8) == 0


def load_config_threads(threads, processors):
    from p2pledger.node.config import Config, VerifySection

    return Config(verify=VerifySection(threads=threads)).verify_threads(processors)
