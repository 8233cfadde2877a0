"""`p2pledger tx`: drafts that several people sign, submissions, and receipts with their proofs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.values import Hex
from p2pledger.primitives.errors import Code, InvalidInput, Refused, Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from p2pledger.chain.receipt import Executed
    from p2pledger.client.ledger import LedgerClient, Receipt
    from p2pledger.client.signing import Draft
    from p2pledger.primitives.codec import Record
    from p2pledger.primitives.crypto import SigningKey


@click.group()
def tx() -> None:
    """Submit transactions and follow their receipts."""


@tx.command("show")
@click.argument("draft", type=FILE)
@with_connection
def show(connection: Connection, draft: Path) -> None:
    """Show what DRAFT says and who has signed it."""
    _show_draft(connection, _read_draft(draft))


@tx.command("sign")
@click.argument("draft", type=FILE)
@click.option("--to", "target", type=FILE, help="Write the signed draft here. [default: stdout]")
@with_connection
def sign(connection: Connection, draft: Path, target: Path | None) -> None:
    """Add our signature to DRAFT: the wallet owner's, or this home's organisation's. Read it first: 'tx show'."""
    read = _read_draft(draft)
    chain = connection.founding().chain
    if read.body.chain != chain:
        raise InvalidInput(f"the draft is for chain {read.body.chain.hex()}, this is chain {chain.hex()}")
    signed = read.signed(connection.signer_of(read.signers))
    write_draft(signed, target)
    say(f"signed by {len(signed.signers) - len(signed.missing)} of {len(signed.signers)}")


@tx.command("submit")
@click.argument("file", type=FILE)
@with_connection
def submit(connection: Connection, file: Path) -> None:
    """Submit a finished draft, or a transaction's bytes, and wait for the proven receipt."""

    data = _transaction_bytes(file)

    async def work(ledger: "LedgerClient") -> "Receipt":
        return await ledger.send(data)

    show_receipt(connection, connection.ask(connection.anybody(), work).executed)


@tx.command("get")
@click.argument("account", type=Hex(32))
@click.argument("nonce", type=click.IntRange(min=1))
@with_connection
def get(connection: Connection, account: bytes, nonce: int) -> None:
    """Show the proven receipt of the transaction with this sender and nonce. Status 6 where there is none (yet)."""
    try:
        show_receipt(connection, _receipt(connection, account, nonce, 0).executed)
    except Unavailable as error:
        raise _not_found(error, account, nonce) from error


@tx.command("wait")
@click.argument("account", type=Hex(32))
@click.argument("nonce", type=click.IntRange(min=1))
@click.option("--timeout", "timeout_s", type=click.IntRange(1, 60), default=30, show_default=True, help="In seconds.")
@with_connection
def wait(connection: Connection, account: bytes, nonce: int, timeout_s: int) -> None:
    """Wait for the proven receipt of the transaction with this sender and nonce. Status 75 where it does not come."""
    show_receipt(connection, _receipt(connection, account, nonce, timeout_s * 1000).executed)


def show_receipt(connection: Connection, executed: "Executed") -> None:
    """A proven receipt; raises Refused where the chain said no, after showing it."""
    receipt = executed.receipt
    row = receipt_row(executed, connection.session.form)
    connection.session.show({**row, "proven": True})
    if receipt.code != Code.OK:
        raise Refused(Code(receipt.code) if receipt.code in Code.__members__.values() else Code.E_INTERNAL)


def receipt_row(executed: "Executed", form: str) -> dict[str, Any]:
    """A receipt with its events in the open; in a table each is one text."""
    from p2pledger.client.export import code_name

    receipt = executed.receipt
    events = [{"event": "pruned"}] if executed.events is None else [_event(data) for data in executed.events]
    return {
        "code": code_name(receipt.code),
        "height": receipt.height,
        "index": receipt.index,
        "transaction": receipt.transaction,
        "events": [_in_words(event) for event in events] if form == "table" else events,
    }


def make_draft(
    connection: Connection,
    author: "SigningKey",
    operation: "Record",
    cosigners: "Sequence[bytes]",
    target: Path | None,
) -> None:
    """Write a draft that the author has signed and that the others sign with 'tx sign' before anybody submits it."""
    from p2pledger.client.signing import Draft
    from p2pledger.primitives.ids import AccountKey

    async def work(ledger: "LedgerClient") -> "Draft":
        chain, nonce = ledger.founding.chain, await ledger.next_nonce()
        others = [AccountKey(key) for key in cosigners]
        return Draft.new(chain, ledger.account, nonce, ledger.expiry(), [operation], others)

    write_draft(connection.ask(author, work).signed(author), target)
    say("next: the others run 'tx sign' within ten minutes, then anybody 'tx submit'")


def write_draft(draft: "Draft", target: Path | None) -> None:
    """The draft's text on stdout, or in a new file."""
    from p2pledger.node.home import write_new

    if target is None:
        click.echo(draft.dump())
    else:
        write_new(target, draft.dump().encode() + b"\n")
        say(f"written to {target}")


def _event(data: bytes) -> dict[str, Any]:
    from msgspec.structs import asdict

    from p2pledger.health.events import decode_event

    event = decode_event(data)
    return {"event": type(event).__name__, **asdict(event)}


def _in_words(event: dict[str, Any]) -> str:
    fields = [f"{name}={value.hex() if isinstance(value, bytes) else value}" for name, value in event.items()]
    return f"{event['event']}({', '.join(fields[1:])})"


def _receipt(connection: Connection, account: bytes, nonce: int, timeout_ms: int) -> "Receipt":
    from p2pledger.client.receipts import proven_receipt
    from p2pledger.primitives.ids import AccountKey, Nonce

    asking, founding, nodes = connection.anybody(), connection.founding(), connection.nodes()

    async def work(_: "LedgerClient") -> "Receipt":
        return await proven_receipt(founding, nodes, asking, AccountKey(account), Nonce(nonce), timeout_ms)

    return connection.ask(asking, work)


def _not_found(error: Unavailable, account: bytes, nonce: int) -> Exception:
    from p2pledger.primitives.errors import Unreachable

    if isinstance(error, Unreachable):
        return error
    return Rejected(Code.E_NOT_FOUND, f"no proven receipt of nonce {nonce} of {account.hex()}: {error}")


def _read(path: Path) -> bytes:
    from p2pledger.node.home import read_bounded
    from p2pledger.primitives import limits

    try:
        return read_bounded(path, 4 * limits.TRANSACTION_BYTES_MAX)
    except FileNotFoundError as error:
        raise InvalidInput(f"{path} does not exist") from error


def _read_draft(path: Path) -> "Draft":
    from p2pledger.client.signing import Draft

    try:
        return Draft.load(_read(path).decode())
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not a draft of a transaction: no text in UTF-8") from error


def _transaction_bytes(path: Path) -> bytes:
    """A draft begins with a brace; a transaction, an array of three, never does."""
    data = _read(path)
    return _read_draft(path).transaction().data if data.lstrip().startswith(b"{") else data


def _show_draft(connection: Connection, draft: "Draft") -> None:
    import json

    from p2pledger.cli.values import moment

    reads = json.loads(draft.dump())["reads"]
    signers = [{"key": key, "signed": key not in draft.missing} for key in draft.signers]
    body, session = draft.body, connection.session
    record = {"chain": body.chain, "nonce": body.nonce, "expires": moment(body.expires_ms)}
    if session.form != "table":
        session.show({**record, "operations": reads, "signers": signers})
        return
    session.show({**record, **{f"operation {i}": json.dumps(one) for i, one in enumerate(reads, start=1)}})
    click.echo()
    session.show_all(signers, ["key", "signed"])
