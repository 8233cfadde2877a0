"""`p2pledger genesis`: from cards to a genesis that everybody signed.

The genesis travels as its canonical bytes, because those are what is signed; `show` is for reading.
"""

from pathlib import Path
from typing import Any

import click

from p2pledger.chain.genesis import GENESIS_BYTES_MAX, Genesis, SignedGenesis, parse_genesis
from p2pledger.cli.output import Session, say, with_session
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.errors import InvalidInput

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def genesis() -> None:
    """Assemble, sign, combine, show and install the genesis."""


@genesis.command("assemble")
@click.argument("cards", nargs=-1, required=True, type=FILE)
@click.option("--name", required=True, help="Public name of the consortium.")
@click.option("--param", "parameters", multiple=True, metavar="KEY=VALUE", help="A parameter all must agree on.")
@click.option("--to", "target", type=FILE, default="genesis.unsigned", show_default=True)
@with_session
def assemble(session: Session, cards: tuple[Path, ...], name: str, parameters: tuple[str, ...], target: Path) -> None:
    """Make the unsigned genesis of these members' CARDS."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.node.ceremony import assemble_genesis, card_from_json
    from p2pledger.node.home import read_text, write_new

    signed = [card_from_json(read_text(path), str(path)) for path in cards]
    made = assemble_genesis(name, now_ms(), parse_pairs(parameters), signed)
    write_new(target, encode(made))
    session.show(_summary(made))
    say(f"written to {target}; every member now reads it ('genesis show') and signs it ('genesis sign')")


@genesis.command("sign")
@click.argument("file", type=FILE)
@click.option("--to", "target", type=FILE, help="Also write the signature here.")
@with_session
def sign(session: Session, file: Path, target: Path | None) -> None:
    """Sign the genesis in FILE with this home's account key and print the signature."""
    from p2pledger.node.ceremony import sign_as_member, signature_to_json
    from p2pledger.node.home import write_new

    made = _read_unsigned(file)
    signature = sign_as_member(session.home, made, session.organisation_keys)
    name = next(card.name for card in made.cards if card.account == signature.account)
    text = signature_to_json(signature, name)
    if target is not None:
        write_new(target, text.encode())
    click.echo(text, nl=False)


@genesis.command("combine")
@click.argument("file", type=FILE)
@click.argument("signatures", nargs=-1, required=True, type=FILE)
@click.option("--to", "target", type=FILE, default="genesis.signed", show_default=True)
@with_session
def combine(session: Session, file: Path, signatures: tuple[Path, ...], target: Path) -> None:
    """Join the genesis in FILE and all members' SIGNATURES."""
    from p2pledger.node.ceremony import combine_signatures, signature_from_json
    from p2pledger.node.home import read_text, write_new

    made = _read_unsigned(file)
    signed = combine_signatures(made, [signature_from_json(read_text(path), str(path)) for path in signatures])
    write_new(target, encode(signed))
    session.show(_summary(made))
    say(f"written to {target}; every member installs it ('genesis install')")


@genesis.command("show")
@click.argument("file", required=False, type=FILE)
@with_session
def show(session: Session, file: Path | None) -> None:
    """Show the genesis in FILE, or the one installed in this home."""
    from p2pledger.node.home import Layout, existing_home

    path = file if file is not None else Layout(existing_home(session.home)).genesis
    made, is_signed = _read_any(path)
    members: list[dict[str, Any]] = [
        {"name": card.name, "kind": card.kind, "organisation": card.organisation, "node": card.node}
        for card in made.cards
    ]
    parameters = {name: getattr(made.parameters, name) for name in made.parameters.__struct_fields__}
    if session.form == "table":
        session.show({**_summary(made), "signed": is_signed, **parameters})
        click.echo()
        session.show_all(members, ["name", "kind", "organisation", "node"])
    else:
        session.show({**_summary(made), "signed": is_signed, "parameters": parameters, "member": members})


@genesis.command("install")
@click.argument("file", type=FILE)
@with_session
def install(session: Session, file: Path) -> None:
    """Put the signed genesis in FILE into this home; a node starts from no other."""
    from p2pledger.node.ceremony import install_genesis

    made, is_signed = _read_any(file)
    if not is_signed:
        raise InvalidInput(f"{file} is not signed; 'genesis combine' joins it with every member's signature")
    founding = install_genesis(session.home, parse_genesis(_read(file)))
    session.show(_summary(made))
    say(f"installed; {founding.tolerated_faults} of {founding.validators.n} members may fail or lie")


def parse_pairs(given: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE texts as a mapping; raises InvalidInput."""
    pairs: dict[str, str] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator or key in pairs:
            raise InvalidInput(f"{text!r} is not KEY=VALUE, each key once")
        pairs[key] = value
    return pairs


def _read(path: Path) -> bytes:
    from p2pledger.node.home import read_bounded

    try:
        return read_bounded(path, GENESIS_BYTES_MAX)
    except FileNotFoundError as error:
        raise InvalidInput(f"{path} does not exist") from error


def _read_unsigned(path: Path) -> Genesis:
    made, is_signed = _read_any(path)
    if is_signed:
        raise InvalidInput(f"{path} is already signed by everybody")
    return made


def _read_any(path: Path) -> tuple[Genesis, bool]:
    """The genesis in a file and whether all members signed it; raises InvalidInput."""
    data = _read(path)
    try:
        return decode(Genesis, data, GENESIS_BYTES_MAX), False
    except InvalidInput:
        signed: SignedGenesis = parse_genesis(data)
        return signed.genesis, True


def _summary(made: Genesis) -> dict[str, Any]:
    return {"consortium": made.name, "chain": made.chain, "members": len(made.cards), "created_ms": made.created_ms}
