"""`p2pledger vault`: where sealed records lie; copies at other custodians; who proves to hold what."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pledger.cli.connect import FILE, Connection, own_node, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.values import Hex
from p2pledger.primitives.errors import ConfigError, InvalidInput, Unavailable
from p2pledger.primitives.ids import Bytes16

if TYPE_CHECKING:
    from p2pledger.client.ledger import LedgerClient
    from p2pledger.client.restoring import Restored
    from p2pledger.client.vault import Vault
    from p2pledger.node.home import Home
    from p2pledger.vault.connection import VaultAddress
    from p2pledger.vault.replicas import Replicas

SAMPLE = 100
"""A holder that has lost one object in fifty is found out by a hundred questions in 87 of 100 audits."""


@click.group()
def vault() -> None:
    """Serve, copy, audit and mend the vault of sealed records."""


@vault.command("serve")
@with_connection
def serve(connection: Connection) -> None:
    """Serve this home's vault: records to readers whom the chain allows, copies to other custodians. SIGTERM stops."""
    import trio

    from p2pledger.node.logs import configure_logs
    from p2pledger.node.vault import OwnNode, serve_vault

    home, wallet = connection.home(), connection.organisation()
    configure_logs(home.config.node.log_level, home.config.node.log_format)
    node = OwnNode(home, lambda: own_node(home), wallet.account)
    trio.run(serve_vault, home, home_vault(connection, home), node)


@vault.command("put")
@click.argument("files", nargs=-1, required=True, type=FILE)
@with_connection
def put(connection: Connection, files: tuple[Path, ...]) -> None:
    """Keep FILES, sealed objects or capsules out of a backup, by their hash: here and at the replicas."""
    from p2pledger.node.home import read_bounded
    from p2pledger.primitives.crypto import sha256
    from p2pledger.vault.objects import OBJECT_BYTES_MAX

    replicas = _replicas(connection)
    names = {}
    for path in files:
        try:
            data = read_bounded(path, OBJECT_BYTES_MAX)
        except FileNotFoundError as error:
            raise InvalidInput(f"{path} does not exist") from error
        names[sha256(data)] = path
        replicas.own.put(sha256(data), data)
    kept = _run(replicas.keep, list(names))
    connection.session.show_all([{"name": name, "file": path} for name, path in names.items()], ["name", "file"])
    _say_failures(kept.failures)
    say(f"{len(names)} objects, {kept.copies} durable copies of each")


@vault.command("get")
@click.argument("name", type=Hex(16, 32))
@click.option("--to", "target", type=FILE, required=True, help="Write the sealed bytes here.")
@with_connection
def get(connection: Connection, name: bytes, target: Path) -> None:
    """Fetch the sealed object or manifest NAME from our own store, else from any copy; checked by hash or seal."""
    from p2pledger.node.home import write_new

    data = _run(_replicas(connection).get, name)
    write_new(target, data, 0o600)
    say(f"{name.hex()}: {len(data)} sealed bytes")


@vault.command("list")
@with_connection
def list_(connection: Connection) -> None:
    """List what lies in our own store: manifests, and the objects and capsules that they name."""
    from p2pledger.client.vault import names_of

    ours = home_vault(connection, connection.home())
    rows: list[dict[str, object]] = []
    known = set()
    for batch in ours.batches():
        rows.append({"name": batch, "kind": "manifest", "record": ""})
        manifest = ours.manifest(batch)
        for entry in manifest.entries:
            ref = manifest.ref(entry.index)
            for kind, name in zip(("object", "capsule"), names_of(entry), strict=False):
                known.add(name)
                rows.append({"name": name, "kind": kind if ours.store.has(name) else f"{kind}, missing", "record": ref})
    rows += [
        {"name": name, "kind": "named by no manifest", "record": ""}
        for name in ours.store.names()
        if name not in known and len(name) == 32
    ]
    connection.session.show_all([{**row, "record": str(row["record"])} for row in rows], ["name", "kind", "record"])


@vault.command("audit")
@click.option("--sample", type=click.IntRange(1, 4096), default=SAMPLE, show_default=True, help="Objects to ask about.")
@with_connection
def audit(connection: Connection, sample: int) -> None:
    """Challenge our own store and every replica to prove that they hold random objects. Status 1: one did not."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.node.vault import note_audit

    home = connection.home()
    ours = home_vault(connection, home)
    replicas = _replicas(connection)
    findings = _run(replicas.audit, ours.wanted(), sample)
    note_audit(home, findings, now_ms())
    rows = [
        {
            "holder": one.holder,
            "asked": one.asked,
            "held": one.held,
            "missing": [name.hex() for name in one.missing],
            "says": one.failure or ("all held" if one.is_good else "lost or changed"),
        }
        for one in findings
    ]
    connection.session.show_all(rows, ["holder", "asked", "held", "says"])
    for one in findings:
        for name in one.missing:
            say(f"{one.holder} does not hold {name.hex()}")
    if not all(one.is_good for one in findings):
        say("mend it: p2pledger vault repair")
        raise click.exceptions.Exit(1)


@vault.command("repair")
@click.option("--restore", is_flag=True, help="Take back whatever replicas keep for us; after our own store was lost.")
@with_connection
def repair(connection: Connection, restore: bool) -> None:
    """Have everything in our own store and at every replica again, from whichever copy is whole.

    What the chain says is erased stays away: each batch is asked about before anything is taken back.
    """
    from p2pledger.client.restoring import mend, nothing_erased, proven_erased

    organisation, ours = connection.organisation(), home_vault(connection, connection.home())
    replicas = _replicas(connection)

    async def work(ledger: "LedgerClient") -> "Restored":
        await enter_keepers(connection, ledger)
        known = await replicas.known() if restore else ()
        return await mend(ours, organisation.custodian, replicas, partial(proven_erased, ledger), known)

    if replicas.holders:
        done = connection.ask(organisation.account, work)
    else:
        done = _run(mend, ours, organisation.custodian, replicas, nothing_erased)
    mended = done.mended
    connection.session.show(
        {
            "wanted": done.wanted,
            "restored": mended.restored,
            **{f"sent to {name}": count for name, count in mended.sent.items()},
            "lost": [name.hex() for name in mended.lost],
            "erased, not restored": len(done.erased),
        }
    )
    if done.erased:
        say(f"{len(done.erased)} objects of erased records are somewhere: 'erase recheck' here, 'erase replica' there")
    if done.unnamed:
        say(f"{done.unnamed} objects at replicas are named by no manifest and were not taken back")
    _say_failures(mended.failures)
    if mended.lost:
        raise Unavailable(f"{len(mended.lost)} objects are to be had nowhere; take them from a backup: 'vault put'")
    if mended.failures:
        raise Unavailable(f"{len(mended.failures)} replicas were not completed; try again when they are back")


async def enter_keepers(connection: Connection, ledger: "LedgerClient") -> None:
    """Have those who keep copies for this house entered as holders, and say who was entered."""
    from p2pledger.client.custody import register_holders
    from p2pledger.node.vault import keepers_of

    names = keepers_of(connection.home())
    custodian = connection.organisation().custodian.organisation
    for keeper in await register_holders(ledger, custodian, list(names)):
        say(f"{names[Bytes16(keeper)]} is entered as a holder of replicas: it certifies erasures, too")


def home_vault(connection: Connection, home: "Home") -> "Vault":
    """The vault of a home, in its folder or bucket."""
    from p2pledger.client.vault import Vault
    from p2pledger.node.vault import own_store

    return Vault(own_store(home), connection.organisation().custodian.box)


def vault_address(connection: Connection, text: str) -> "VaultAddress":
    """The vault service in HOST:PORT=NAME, NAME a member's; raises InvalidInput."""
    from p2pledger.node.config import Address
    from p2pledger.vault.connection import VaultAddress

    where, separator, who = text.partition("=")
    if not separator:
        raise InvalidInput(f"vault {text!r} is not HOST:PORT=NAME")
    try:
        address = Address.parse(where)
    except ConfigError as error:
        raise InvalidInput(f"vault {text!r}: {error}") from error
    card = connection.card(who)
    return VaultAddress(card.name, address.host, address.port, card.node)


def _replicas(connection: Connection) -> "Replicas":
    from p2pledger.node.vault import replicas_of

    home = connection.home()
    return replicas_of(home, home_vault(connection, home))


def _run(work: Any, *arguments: Any) -> Any:
    import trio

    return trio.run(work, *arguments)


def _say_failures(failures: "tuple[str, ...] | list[str]") -> None:
    for failure in failures:
        say(f"not complete: {failure}")
