"""`p2pledger verify`: an exported access log, checked offline with nothing but the genesis."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from p2pledger.cli.connect import FILE
from p2pledger.cli.output import Session, say, with_session
from p2pledger.cli.values import moment
from p2pledger.primitives.errors import ConfigError, InvalidInput

if TYPE_CHECKING:
    from p2pledger.health.log import LogLine
    from p2pledger.primitives.ids import ChainId

_FILE_BYTES_MAX = 512 * 1024 * 1024


@click.command()
@click.argument("file", type=FILE)
@click.option(
    "--genesis",
    metavar="HASH|FILE",
    envvar="P2PLEDGER_GENESIS",
    help="The chain id, or the signed genesis. [default: the home's]",
)
@with_session
def verify(session: Session, file: Path, genesis: str | None) -> None:
    """Check FILE and say what it proves. No node is asked. Status 5 names the step that fails."""
    from p2pledger.client.export import is_line, verify_export, verify_line
    from p2pledger.node.home import read_bounded

    chain = _chain(session, genesis)
    try:
        data = read_bounded(file, _FILE_BYTES_MAX)
    except FileNotFoundError as error:
        raise InvalidInput(f"{file} does not exist") from error
    if is_line(data):
        _say_line(session, verify_line(data, chain), chain)
        return
    log = verify_export(data, chain)
    allowed = sum(line.decision == 0 for line in log.lines)
    session.show(
        {
            "verified": True,
            "chain": chain,
            "pid": log.pid,
            "height": log.height,
            "proven": moment(log.proven_ms),
            "lines": len(log.lines),
            "allowed": allowed,
            "denied": len(log.lines) - allowed,
        }
    )
    say(f"these are all decisions about this patient's records up to height {log.height}; none is missing or changed")


def _say_line(session: Session, line: "LogLine", chain: "ChainId") -> None:
    from p2pledger.client import words

    session.show(
        {
            "verified": True,
            "chain": chain,
            "pid": line.pid,
            "line": line.sequence,
            "when": moment(line.time_ms),
            "organisation": line.organisation,
            "purpose": words.purpose(line.purpose),
            "decision": words.decision(line.decision),
        }
    )
    say(f"this is line {line.sequence} of the patient's access log; about other lines it says nothing")


def _chain(session: Session, genesis: str | None) -> "ChainId":
    """What the verifier trusts; raises ConfigError where nothing says it."""
    from p2pledger.cli.connect import Connection
    from p2pledger.primitives.ids import ChainId

    if genesis is not None and re.fullmatch(r"[0-9a-fA-F]{64}", genesis):
        return ChainId(bytes.fromhex(genesis))
    if genesis is None and not session.home.is_dir():
        raise ConfigError("say --genesis HASH: without the genesis there is nothing to verify against")
    return Connection(session, None if genesis is None else Path(genesis), (), None, None).founding().chain
