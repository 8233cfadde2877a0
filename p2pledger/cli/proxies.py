"""`p2pledger consent proxy` and `deceased`: who acts for a patient, and what two organisations say about one."""

from pathlib import Path
from typing import Any

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.values import Hex, Instant, moment
from p2pledger.primitives.errors import InvalidInput

_WITH = click.option("--with", "others", multiple=True, metavar="NAME", help="The organisation that signs, too.")
_TO = click.option("--to", "target", type=FILE, help="Write the draft here. [default: stdout]")
_EVIDENCE = click.option("--evidence", required=True, type=Hex(32), help="Commitment to the document that proves it.")


@click.group()
def proxy() -> None:
    """Parents, attorneys and guardians: enter, end and show them."""


@proxy.command("grant")
@click.option("--pid", type=Hex(16), help="For whom. [default: the wallet's owner]")
@click.option("--proxy", "did", required=True, type=Hex(16), help="Who acts: the id of a registered identity.")
@click.option("--kind", type=click.Choice(("parent", "attorney", "guardian")), default="attorney", show_default=True)
@click.option("--power", "powers", type=click.Choice(("consent", "read", "erase")), multiple=True, required=True)
@click.option("--until", "until_ms", required=True, type=Instant(), help="For a parent the age of majority; exclusive.")
@_EVIDENCE
@_WITH
@_TO
@with_connection
def grant(
    connection: Connection,
    pid: bytes | None,
    did: bytes,
    kind: Any,
    powers: tuple[Any, ...],
    until_ms: int,
    evidence: bytes,
    others: tuple[str, ...],
    target: Path | None,
) -> None:
    """Enter a proxy: as the patient an attorney, at once; as its custodian anybody, a draft that --with cosigns."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.health.proxy_operations import ProxyGrant
    from p2pledger.primitives.ids import Bytes16, Bytes32, Millis

    start = now_ms() - connection.founding().parameters.drift_ms  # our clock may be ahead of the chain's
    whose = _whose(connection, pid)
    named = tuple(dict.fromkeys(powers))
    operation = ProxyGrant(
        Bytes16(whose), Bytes16(did), kind, named, Millis(start), Millis(until_ms), Bytes32(evidence)
    )
    _send(connection, operation, others, target)


@proxy.command("revoke")
@click.option("--pid", type=Hex(16), help="For whom it acted. [default: the wallet's owner]")
@click.option("--proxy", "did", required=True, type=Hex(16), help="Who acted.")
@_WITH
@_TO
@with_connection
def revoke(connection: Connection, pid: bytes | None, did: bytes, others: tuple[str, ...], target: Path | None) -> None:
    """End a proxy: whoever entered it, or the proxy itself."""
    from p2pledger.health.proxy_operations import ProxyRevoke
    from p2pledger.primitives.ids import Bytes16

    _send(connection, ProxyRevoke(Bytes16(_whose(connection, pid)), Bytes16(did)), others, target)


@proxy.command("show")
@click.option("--pid", required=True, type=Hex(16), help="For whom.")
@click.option("--proxy", "did", required=True, type=Hex(16), help="Who acts.")
@with_connection
def show(connection: Connection, pid: bytes, did: bytes) -> None:
    """What somebody is to a patient, proven up to the last checkpoint; members only."""
    from p2pledger.client.ledger import LedgerClient
    from p2pledger.health import keys
    from p2pledger.health.proxies import decode_proxy
    from p2pledger.primitives.ids import Height

    async def work(ledger: LedgerClient) -> tuple[Height, bytes | None]:
        return await ledger.state(keys.proxy(pid, did))

    height, data = connection.ask(connection.signer(), work)
    if data is None:
        raise InvalidInput(f"{did.hex()} was no proxy of {pid.hex()} at height {height}, proven")
    found = decode_proxy(data)
    connection.session.show(
        {
            "kind": found.terms.kind,
            "powers": list(found.terms.powers),
            "from": moment(found.terms.valid_from_ms),
            "until": moment(found.terms.valid_to_ms),
            "entered by": "the patient" if found.is_by_patient else "two organisations",
            "ended": "no" if found.ended is None else f"at height {found.ended}",
            "checkpoint": height,
            "proven": True,
        }
    )


@click.command("deceased")
@click.option("--pid", required=True, type=Hex(16), help="Who has died.")
@click.option("--mistake", is_flag=True, help="Take the mark back.")
@_EVIDENCE
@_WITH
@_TO
@with_connection
def deceased(
    connection: Connection, pid: bytes, mistake: bool, evidence: bytes, others: tuple[str, ...], target: Path | None
) -> None:
    """Mark a patient as deceased, or take that back: a draft by the custodian that --with cosigns."""
    from p2pledger.health.proxy_operations import DeceasedMark
    from p2pledger.primitives.ids import Bytes16, Bytes32

    _send(connection, DeceasedMark(Bytes16(pid), not mistake, Bytes32(evidence)), others, target)


def _whose(connection: Connection, pid: bytes | None) -> bytes:
    if pid is not None:
        return pid
    if connection.wallet_file is None:
        raise InvalidInput("say about whom: --pid HEX")
    return connection.persona().did


def _send(connection: Connection, operation: Any, others: tuple[str, ...], target: Path | None) -> None:
    """With others a draft that they cosign; alone it is submitted."""
    from p2pledger.cli.tx import make_draft, show_receipt
    from p2pledger.client.ledger import LedgerClient, Receipt

    if others:
        cosigners = [connection.card(name).account for name in others]
        make_draft(connection, connection.signer(), operation, cosigners, target)
        return

    async def work(ledger: LedgerClient) -> Receipt:
        return await ledger.submit(operation)

    show_receipt(connection, connection.ask(connection.signer(), work).executed)
