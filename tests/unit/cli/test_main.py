"""The frame of the command line: lazy, quick, and one table from errors to exit statuses."""

import json
import subprocess
import sys

import click
import pytest

from p2pledger.cli import main as cli
from p2pledger.cli.main import NOUNS, Noun, exit_status, main, root
from p2pledger.cli.output import Session, with_session
from p2pledger.primitives.errors import (
    Code,
    ConfigError,
    Divergence,
    InvalidInput,
    PeerFault,
    ProofError,
    Refused,
    Rejected,
    StoreError,
    Unavailable,
    Unreachable,
)

HEAVY = ["rich", "trio", "nacl", "lmdb", "cryptography", "prometheus_client", "structlog", "asyncio"]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "p2pledger", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def status_of(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_help_loads_nothing_heavy():
    """--help stays below 100 ms because it imports click and nothing else (time itself is not asserted)."""
    code = (
        "import sys; from p2pledger.cli.main import root; root.main(['--help'], standalone_mode=False); "
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.strip() == "[]"
    for noun in NOUNS:
        assert noun in done.stdout


def test_every_noun_has_its_place():
    """One module a noun, named after it."""
    assert {name: noun.target for name, noun in NOUNS.items()} == {
        name: f"p2pledger.cli.{name}:{name}" for name in NOUNS
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("?"), 1),
        (StoreError("disk"), 1),
        (Divergence("root"), 1),
        (PeerFault(bytes(32), "bad"), 1),
        (click.UsageError("?"), 2),
        (InvalidInput("value and rule"), 2),
        (Unreachable("127.0.0.1:1"), 3),
        (Refused(Code.E_ROLE), 4),
        (Rejected(Code.E_NONCE, "used"), 4),
        (ProofError("root"), 5),
        (Refused(Code.E_NOT_FOUND), 6),
        (Rejected(Code.E_NOT_FOUND, "height 9"), 6),
        (Rejected(Code.E_BUSY, "full"), 75),
        (Unavailable("catching up"), 75),
        (ConfigError("home"), 78),
        (KeyboardInterrupt(), 130),
        (click.exceptions.Exit(7), 7),
    ],
)
def test_who_is_to_blame_decides_the_exit_status(error, status):
    """The table of docs/operations.md."""
    assert exit_status(error) == status


@pytest.fixture
def failing(monkeypatch):
    """A command that raises what it is told to."""

    def install(error):
        @click.command()
        def command():
            raise error

        module = type(sys)("p2pledger_failing")
        module.command = command
        monkeypatch.setitem(sys.modules, "p2pledger_failing", module)
        monkeypatch.setitem(cli.NOUNS, "failing", Noun("p2pledger_failing:command", ""))

    return install


def test_an_error_is_one_line_on_stderr(failing, capsys):
    """Data and messages do not mix, and our own errors show no traceback."""
    failing(ConfigError("p2p.listen: no"))
    assert status_of("failing") == 78
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: p2p.listen: no\n")


def test_an_error_inside_a_nursery_is_found(failing):
    """trio wraps errors in groups; the status is that of the error."""
    failing(BaseExceptionGroup("nursery", [ExceptionGroup("inner", [ValueError(), ProofError("root")])]))
    assert status_of("failing") == 5


def test_a_defect_keeps_its_traceback(failing):
    """What is not ours to expect is not hidden."""
    failing(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["failing"])


def test_a_missing_module_fails_only_when_called(monkeypatch, capsys):
    """And says which one."""
    monkeypatch.setitem(cli.NOUNS, "absent", Noun("p2pledger.cli.absent:absent", ""))
    assert status_of("--help") == 0
    assert status_of("absent") == 1
    assert "p2pledger.cli.absent" in capsys.readouterr().err


def test_unknown_words_are_usage_errors():
    """Status 2."""
    assert status_of("nonsense") == 2
    assert status_of("version", "--nonsense") == 2
    assert status_of("version", "--output", "xml") == 2


def test_without_assertions_nothing_runs():
    """python -O would switch off what guards agreement."""
    done = subprocess.run(
        [sys.executable, "-O", "-m", "p2pledger", "version"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 78
    assert "-O" in done.stderr


def test_a_reader_that_leaves_early_is_no_traceback():
    """p2pledger … | head"""
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m p2pledger completion bash | true"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr


def test_version_in_every_form(capsys):
    """--output may stand on either side of the noun."""
    for arguments in (("version", "--output", "json"), ("--output", "json", "version"), ("version", "--output=jsonl")):
        assert status_of(*arguments) == 0
        assert set(json.loads(capsys.readouterr().out)) == {"version", "protocol", "python"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell, capsys):
    """For the shells that click knows."""
    assert status_of("completion", shell) == 0
    assert "_P2PLEDGER_COMPLETE" in capsys.readouterr().out


def test_completion_asks_through_the_environment():
    """The script's own call works with our main."""
    done = subprocess.run(
        [sys.executable, "-m", "p2pledger"],
        env={"_P2PLEDGER_COMPLETE": "bash_complete", "COMP_WORDS": "p2pledger con", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "consortium" in done.stdout


def show(form, capsys):
    rows = [{"name": "A\x1b[2J", "id": b"\x01\x02", "up": True}, {"name": "B", "id": None, "up": False}]

    @click.command()
    @with_session
    def command(session: Session):
        session.show_all(rows, ["name", "id", "up"])

    command.main(["--output", form], standalone_mode=False)
    return capsys.readouterr().out


def test_tables_are_plain_text_when_nobody_watches(capsys):
    """Full width, no colours, no terminal escapes of strangers."""
    assert show("table", capsys).splitlines() == [
        "name      id    up",
        "A\\x1b[2J  0102  yes",
        "B         -     no",
    ]


def test_json_is_one_list_and_jsonl_one_object_a_line(capsys):
    """Bytes are hexadecimal."""
    as_list = json.loads(show("json", capsys))
    as_lines = [json.loads(line) for line in show("jsonl", capsys).splitlines()]
    assert as_list == as_lines
    assert as_list[0] == {"name": "A\x1b[2J", "id": "0102", "up": True}


def test_the_root_is_what_the_script_runs():
    """`p2pledger` and `python -m p2pledger` are one program."""
    assert run("--help").stdout.startswith("Usage: p2pledger ")
    assert root.name == "root"
