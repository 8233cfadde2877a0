"""What may stand in a log line (F-29, T33, T37)."""

import io
import json

import pytest
import structlog

from p2pledger.node import logs
from p2pledger.node.logs import REDACTED, configure_logs, redact
from p2pledger.primitives.errors import InvalidInput

PERSONAL = ["Fidel Bins", "1971-03-02", "999-12-3456", "fidel@example.org", "peanut allergy"]


@pytest.fixture
def stream():
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    yield stream
    structlog.reset_defaults()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_event_is_one_line_of_json(stream):
    """Event, level, time and the bound fields."""
    structlog.get_logger().bind(height=7).info("block_committed", transactions=3, hash=bytes(range(32)))
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "block_committed",
        "level": "info",
        "height": 7,
        "transactions": 3,
        "hash": "00010203",
    }


def test_quieter_levels_are_not_written(stream):
    """The configured level is the lowest one."""
    structlog.get_logger().debug("vote_counted")
    assert lines(stream) == []


def careless(log):
    """Everything a hurried programmer or an attacker could put into a line."""
    name, born, ssn, mail, allergy = PERSONAL
    log.info("record_stored", patient=name, birth_date=born, ssn=ssn, contact_email=mail, allergy=allergy)
    log.info("record_stored", fields={"family": name, "inner": {"birthdate": born, "note": allergy}})
    log.info("record_stored", rows=[{"given": name}, {"identifier": ssn}, {"telecom": mail}])
    log.info(f"stored the record of {name}, {born}, {ssn}, {mail}, {allergy}")
    log.info("record_stored", **{f"of {name}": 1, born: 2, ssn: 3, mail: 4, allergy: 5})
    log.info("record_stored", what=type("Patient", (), {"__repr__": lambda self: " ".join(PERSONAL)})())
    try:
        raise ValueError(" ".join(PERSONAL))
    except ValueError:
        log.exception("record_failed")
    log.info("record_failed", cause=KeyError(*PERSONAL))


@pytest.mark.attack("T37")
def test_nothing_personal_reaches_the_log(stream, monkeypatch, without):
    """F-29: without the redaction every value gets through; with it none does."""
    with without.setup("the redaction"), monkeypatch.context() as patch:
        patch.setattr(logs, "redact", lambda _logger, _method, event: {k: repr(v) for k, v in event.items()})
        configure_logs("info", "json", stream)
        careless(structlog.get_logger())
        assert all(value in stream.getvalue() for value in PERSONAL)
    stream.truncate(0)
    stream.seek(0)
    configure_logs("info", "json", stream)
    careless(structlog.get_logger())
    assert len(lines(stream)) == 8
    assert [value for value in PERSONAL if value in stream.getvalue()] == []


@pytest.mark.attack("T37")
def test_a_name_in_prose_or_under_a_personal_key_is_not_repeated(without):
    """F-29: what the event and its fields are called decides before anything of them is shown."""
    with without(logs._event_name, "_EVENT.fullmatch(value)"):
        assert redact(None, "", {"event": "stored Fidel Bins"}) == {"event": "stored Fidel Bins"}
    assert redact(None, "", {"event": "stored Fidel Bins"}) == {"event": "event_without_a_proper_name"}
    with without(logs.redact, "not _KEY.fullmatch(key)"):
        assert "Fidel Bins" in redact(None, "", {"Fidel Bins": 1})
    assert redact(None, "", {"Fidel Bins": 1}) == {"unnamed": REDACTED}


def test_a_log_line_cannot_be_forged(stream):
    """T37: line breaks, terminal escapes and direction marks are escaped, in every form of output."""
    attack = 'x\n{"event": "block_committed"}\r\x1b[2J\u202e\u2028\x00'
    for form in ("json", "console"):
        stream.truncate(0)
        stream.seek(0)
        configure_logs("info", form, stream)
        structlog.get_logger().warning("peer_refused", reason=attack)
        text = stream.getvalue()
        assert len(text.splitlines()) == 1
        assert not any(c in text for c in ("\x1b", "\u202e", "\x00"))


def test_a_line_has_a_bounded_length(stream):
    """T37: huge and deep values are cut."""
    deep: object = 1
    for _ in range(10_000):
        deep = [deep]
    structlog.get_logger().info("peer_refused", reason="y" * 10**6, many=list(range(10**5)), deep=deep)
    assert len(stream.getvalue()) < 2_000


def test_long_hexadecimal_is_shortened_to_eight_digits():
    """A seed that slipped into a text is not readable from the log (T33)."""
    seed = bytes(range(32)).hex()
    assert redact(None, "", {"reason": f"key {seed} refused"}) == {"reason": "key 00010203… refused"}


@pytest.mark.parametrize("key", ["seed", "private_key", "share", "passphrase", "auth_token", "patient_id", "body"])
def test_secret_and_personal_names_are_taken_out_whatever_they_hold(key):
    """By any word of the name."""
    for value in ("x", b"x", 5, {"a": 1}, None):
        assert redact(None, "", {key: value}) == {key: REDACTED}


def test_our_own_errors_keep_their_words(stream):
    """They are written to be read; errors of others show kind and place only."""
    for error in (InvalidInput("height 7 does not follow 5"), ValueError("height 7")):
        try:
            raise error
        except Exception:
            structlog.get_logger().exception("block_refused")
    ours, other = lines(stream)
    assert ours["error"]["kind"] == "InvalidInput"
    assert ours["error"]["reason"] == "height 7 does not follow 5"
    assert other["error"]["kind"] == "ValueError"
    assert "reason" not in other["error"]
    assert other["error"]["at"][0].endswith("test_our_own_errors_keep_their_words")
