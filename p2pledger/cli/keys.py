"""`p2pledger keys`: what lies in keys/, and its backup on paper."""

from typing import TYPE_CHECKING

import click

from p2pledger.cli.connect import Connection, with_connection
from p2pledger.cli.output import Session, say, with_session
from p2pledger.primitives.errors import InvalidInput

if TYPE_CHECKING:
    from p2pledger.client.ledger import LedgerClient

PURPOSES = {
    "account": "signs transactions and the genesis",
    "consensus": "votes",
    "node": "carries the links",
    "box": "opens what others seal to this member",
}


@click.group()
def keys() -> None:
    """Show, back up, restore and check the keys of a home."""


@keys.command("show")
@with_session
def show(session: Session) -> None:
    """Show the public halves of this home's keys."""
    from p2pledger.node.home import load_node_keys, load_organisation_keys

    layout = session.layout()
    own, node = load_organisation_keys(layout), load_node_keys(layout)
    public = {
        "account": own.account.public,
        "consensus": node.consensus.public,
        "node": node.node.public,
        "box": own.box.public,
    }
    rows = [{"key": name, "public": public[name], "use": PURPOSES[name]} for name in public]
    session.show_all(rows, ["key", "public", "use"])


@keys.command("phrase")
@click.argument("name", type=click.Choice(list(PURPOSES)))
@with_session
def phrase(session: Session, name: str) -> None:
    """Show the 24 words that restore the key NAME of this home. On paper, in the safe, never in a picture or a mail."""
    from p2pledger.client.phrase import phrase_of
    from p2pledger.node.home import load_seed

    session.show({"key": name, "phrase": phrase_of(load_seed(session.layout().key(name)))})


@keys.command("restore")
@click.argument("name", type=click.Choice(list(PURPOSES)))
@with_session
def restore(session: Session, name: str) -> None:
    """Write the missing key NAME of this home from its 24 words, which must be those of the home's card.

    A node whose journal is lost as well must not vote before it has asked the others; it does so by itself.
    """
    from p2pledger.client.phrase import secret_of
    from p2pledger.client.sealing import BoxKey
    from p2pledger.node.ceremony import card_from_json
    from p2pledger.node.home import read_text
    from p2pledger.primitives.crypto import SigningKey
    from p2pledger.storage.files import create_private

    layout = session.layout()
    card = card_from_json(read_text(layout.card), str(layout.card)).card
    expected = {"account": card.account, "consensus": card.validator, "node": card.node, "box": card.box}[name]
    seed = secret_of(click.prompt("Phrase", hide_input=True, err=True))
    if len(seed) != 32:
        raise InvalidInput("a key's backup phrase has 24 words")
    public = BoxKey(seed).public if name == "box" else SigningKey(seed).public
    if public != expected:
        raise InvalidInput(f"these words are of key {public.hex()}; the card's {name} key is {expected.hex()}")
    create_private(layout.key(name), seed.hex().encode() + b"\n")
    session.show({"key": name, "public": public, "file": layout.key(name)})
    say("next: p2pledger keys check")


@keys.command("next")
@with_session
def make_next(session: Session) -> None:
    """Make the organisation's next account key: for 'keys rotate', or for 'member rekey' by the others."""
    import secrets

    from p2pledger.node.home import load_organisation_keys, load_seed
    from p2pledger.primitives.crypto import SigningKey
    from p2pledger.storage.files import create_private

    layout = session.layout()
    box = load_organisation_keys(layout).box.public
    if not layout.account_next.exists():
        create_private(layout.account_next, secrets.token_bytes(32).hex().encode() + b"\n")
    account = SigningKey(load_seed(layout.account_next)).public
    session.show({"account": account, "box": box, "file": layout.account_next})
    say("next: 'keys rotate'; or, where the present key was stolen, the others run 'member rekey' with these two")


@keys.command("rotate")
@with_connection
def rotate(connection: Connection) -> None:
    """Put the key of 'keys next' in place of the organisation's account key, on the chain and in the home.

    After an interruption do it again; where the chain has the next key already, the home follows. The card's key stays
    in the home: the genesis names it.
    """
    from p2pledger.health.identity_operations import OrganisationKeyRotate
    from p2pledger.node.home import load_seed
    from p2pledger.primitives.crypto import SigningKey
    from p2pledger.primitives.ids import AccountKey
    from p2pledger.storage.files import sync_folder

    layout = connection.home().layout
    if not layout.account_next.exists():
        raise InvalidInput("there is no next key; make one with 'keys next', and back it up")
    coming = SigningKey(load_seed(layout.account_next))
    organisation = connection.organisation()
    operation = OrganisationKeyRotate(AccountKey(coming.public), organisation.custodian.box.public)

    async def stands(ledger: "LedgerClient") -> bool:
        return (await ledger.standing()).role == "organisation"

    async def work(ledger: "LedgerClient") -> int:
        return (await ledger.submit(operation, cosigners=[coming])).executed.receipt.height

    height = None if connection.ask(coming, stands) else connection.ask(organisation.account, work)
    layout.account_next.replace(layout.account_now)
    sync_folder(layout.office)
    connection.session.show({"account": coming.public, "height": height, "file": layout.account_now})
    say("the old key is dead; back up the new one: it is not in the backup of the card's keys")


@keys.command("check")
@with_session
def check(session: Session) -> None:
    """Check everything that `start` checks: keys, modes, certificate, genesis, settings. Status 78 if not."""
    home = session.load_home()
    session.show(
        {
            "home": home.layout.root,
            "member": home.card.name,
            "organisation": home.card.organisation,
            "chain": home.founding.chain,
            "members": len(home.founding.genesis.cards),
            "peers": len(home.peers()),
            "organisation's keys": home.layout.office if home.organisation_keys else "elsewhere; the node does without",
        }
    )
    say("all checks passed")
