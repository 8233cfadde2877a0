"""The founding of a consortium: every member makes its card, all sign one genesis, each installs it.

Keys never leave the home that made them. `create_consortium` does all of it in one process for demonstrations, where
one machine sees every key; that is not how a real consortium is founded.
"""

import json
import os
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec

from p2pledger.chain.genesis import (
    Card,
    Founding,
    Genesis,
    OrganisationKind,
    Parameters,
    SignedCard,
    SignedGenesis,
    assemble,
    check_card,
    combine,
    sign_card,
    sign_genesis,
)
from p2pledger.network.certificates import check_certificate, make_certificate
from p2pledger.node.config import Address
from p2pledger.node.home import (
    ORGANISATION_KEY_NAMES,
    Layout,
    MemberKeys,
    check_founding,
    existing_home,
    load_node_keys,
    load_organisation_keys,
    write_keys,
    write_new,
)
from p2pledger.primitives import limits
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import AccountKey, Millis, NodeId, Signature, ValidatorId

KINDS: tuple[str, ...] = get_args(OrganisationKind)
CARD_FORMAT = "p2pledger/card/1"
SIGNATURE_FORMAT = "p2pledger/genesis-signature/1"
DEFAULT_MEMBERS: tuple[tuple[str, str], ...] = (
    ("City Hospital", "hospital"),
    ("Lakeside Hospital", "hospital"),
    ("Mutual Health Insurance", "insurer"),
    ("Health Data Agency", "agency"),
)
PORT_DEFAULT = 7420
PORTS_OF_ONES_OWN = (10_240, 32_768)
"""Above what services usually have, below what Linux gives to outgoing connections."""
PORTS_PER_MEMBER = 10


def init_member(
    root: Path, name: str, kind: str, organisation: bytes | None = None, organisation_keys: Path | None = None
) -> SignedCard:
    """A new home with fresh keys and the signed card that may leave it; `organisation_keys`: another folder for those.

    Raises InvalidInput if a folder already holds keys, or a name, kind or organisation breaks its rule.
    """
    layout = Layout(root, organisation_keys)
    if layout.keys.exists() or layout.keys.is_symlink():
        raise InvalidInput(f"{root} already holds keys; a second member needs a second home")
    if organisation_keys and any(os.path.lexists(layout.key(each)) for each in ORGANISATION_KEY_NAMES):
        raise InvalidInput(f"{layout.office} already holds an organisation's keys")
    keys = MemberKeys.generate()
    certificate = make_certificate(keys.node)
    card = _checked(
        Card(
            organisation=organisation if organisation is not None else secrets.token_bytes(16),
            name=name,
            kind=kind,  # type: ignore[arg-type]  # _checked judges it
            account=AccountKey(keys.account.public),
            box=keys.box.public,
            validator=ValidatorId(keys.consensus.public),
            node=NodeId(keys.node.public),
            certificate=certificate,
        ),
        f"member {name!r}",
    )
    signed = sign_card(card, keys.account)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_keys(layout, keys)
    write_new(layout.certificate, certificate)
    write_new(layout.card, card_to_json(signed).encode())
    return signed


def _checked(card: Card, source: str) -> Card:
    if any(not character.isprintable() for character in card.name) or card.name != card.name.strip():
        raise InvalidInput(f"{source}: a public name has printable characters only and no spaces around it")
    try:
        return msgspec.convert(msgspec.to_builtins(card, builtin_types=(bytes,)), Card, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{source}: {error}") from error


def assemble_genesis(name: str, created_ms: int, parameters: Mapping[str, str], cards: Sequence[SignedCard]) -> Genesis:
    """The genesis for everybody to sign; raises InvalidInput."""
    for signed in cards:
        check_certificate(signed.card.certificate, signed.card.node)
    return assemble(name, Millis(created_ms), parse_parameters(parameters), cards)


def parse_parameters(given: Mapping[str, str]) -> Parameters:
    """Defaults with `given` in place of some; raises InvalidInput naming the key, the value and the rule."""
    fields = {field.name: field for field in msgspec.structs.fields(Parameters)}
    changed: dict[str, Any] = {}
    for key, text in given.items():
        if key not in fields:
            raise InvalidInput(f"parameter {key!r} is unknown, known are {', '.join(fields)}")
        try:
            changed[key] = msgspec.convert(text, fields[key].type, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"parameter {key} = {text!r}: {error}") from error
    return msgspec.structs.replace(Parameters(), **changed)


@dataclass(frozen=True)
class MemberSignature:
    """One member's signature under a genesis."""

    account: AccountKey
    chain: bytes
    signature: Signature


def sign_as_member(root: Path, genesis: Genesis, organisation_keys: Path | None = None) -> MemberSignature:
    """Sign with the account key; raises InvalidInput unless this member is in the genesis with these keys."""
    layout = Layout(existing_home(root), organisation_keys)
    keys, organisation = load_node_keys(layout), load_organisation_keys(layout)
    card = next((card for card in genesis.cards if card.account == organisation.account.public), None)
    if card is None:
        raise InvalidInput(f"account key {organisation.account.public.hex()} is of no member of this genesis")
    own = (keys.consensus.public, keys.node.public, organisation.box.public)
    if (card.validator, card.node, card.box) != own:
        raise InvalidInput(f"the genesis gives {card.name!r} other keys than this home holds; do not sign it")
    return MemberSignature(card.account, genesis.chain, sign_genesis(genesis, organisation.account))


def combine_signatures(genesis: Genesis, signatures: Sequence[MemberSignature]) -> SignedGenesis:
    """The signed genesis; raises InvalidInput naming who is missing, wrong or signed something else."""
    names = {card.account: card.name for card in genesis.cards}
    for signature in signatures:
        if signature.account not in names:
            raise InvalidInput(f"signature by {signature.account.hex()}, who is no member")
        if signature.chain != genesis.chain:
            raise InvalidInput(
                f"{names[signature.account]!r} signed genesis {signature.chain.hex()}, this is {genesis.chain.hex()}"
            )
    return combine(genesis, {signature.account: signature.signature for signature in signatures})


def install_genesis(root: Path, signed: SignedGenesis) -> Founding:
    """Put the signed genesis into a home; raises InvalidInput if it is foreign or another one is installed."""
    layout = Layout(existing_home(root))
    founding = check_founding(signed)
    keys = load_node_keys(layout)
    if all(card.node != keys.node.public for card in founding.genesis.cards):
        raise InvalidInput(f"genesis is foreign: node key {keys.node.public.hex()} is not among its members")
    write_new(layout.genesis, encode(signed))
    return founding


# The files that travel between members


def card_to_json(signed: SignedCard) -> str:
    """A card as people mail it."""
    card = signed.card
    fields: dict[str, str] = {"format": CARD_FORMAT, "name": card.name, "kind": card.kind}
    for key in ("organisation", "account", "box", "validator", "node", "certificate"):
        fields[key] = getattr(card, key).hex()
    return json.dumps({**fields, "signature": signed.signature.hex()}, indent=2, ensure_ascii=False) + "\n"


def card_from_json(text: str, source: str) -> SignedCard:
    """The card with its signature checked; raises InvalidInput."""
    names = ("organisation", "account", "box", "validator", "node", "certificate")
    fields = _fields(text, source, CARD_FORMAT, ("name", "kind", *names, "signature"))
    raw = {name: _hex(fields[name], f"{source}: {name}") for name in (*names, "signature")}
    signature = Signature(raw.pop("signature"))
    card = _checked(Card(name=fields["name"], kind=fields["kind"], **raw), source)  # type: ignore[arg-type]
    signed = SignedCard(card, signature)
    check_card(signed)
    check_certificate(card.certificate, card.node)
    return signed


def signature_to_json(signature: MemberSignature, name: str) -> str:
    """A signature as people mail it."""
    fields = {
        "format": SIGNATURE_FORMAT,
        "member": name,
        "account": signature.account.hex(),
        "chain": signature.chain.hex(),
        "signature": signature.signature.hex(),
    }
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def signature_from_json(text: str, source: str) -> MemberSignature:
    """The signature, not yet checked against a genesis; raises InvalidInput."""
    fields = _fields(text, source, SIGNATURE_FORMAT, ("member", "account", "chain", "signature"))
    account, chain, signature = (_hex(fields[name], f"{source}: {name}") for name in ("account", "chain", "signature"))
    return MemberSignature(AccountKey(account), chain, Signature(signature))


def _fields(text: str, source: str, form: str, names: tuple[str, ...]) -> dict[str, str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{source} is not JSON: {error}") from error
    if not isinstance(value, dict) or value.get("format") != form:
        raise InvalidInput(f"{source} is not of the format {form}")
    if set(value) != {"format", *names}:
        wrong = sorted(set(value) ^ {"format", *names})
        raise InvalidInput(f"{source}: missing or unknown field {', '.join(wrong)}")
    if any(not isinstance(entry, str) for entry in value.values()):
        raise InvalidInput(f"{source}: every field must be text")
    return value


def _hex(text: str, what: str) -> bytes:
    if not re.fullmatch(r"(?:[0-9a-f]{2})*", text):
        raise InvalidInput(f"{what} is not an even number of small hexadecimal digits")
    return bytes.fromhex(text)


# All members at once, for demonstrations


@dataclass(frozen=True)
class CreatedMember:
    """A member made on this machine."""

    name: str
    home: Path
    p2p: Address
    client: Address
    ops: Address
    organisation_keys: Path | None = None
    """None: in the home."""


def create_consortium(
    folder: Path,
    members: Sequence[tuple[str, str]],
    *,
    name: str,
    created_ms: int,
    base_port: int = PORT_DEFAULT,
    parameters: Mapping[str, str] | None = None,
    keys_apart: bool = False,
) -> list[CreatedMember]:
    """Homes of all members with one genesis and loopback addresses. Demonstrations only: one machine sees all keys.

    `keys_apart`: the organisations' keys lie in a folder `organisations` beside the homes.

    Ports are base, base+1, base+2 for the first member, ten further for each next; base 0 takes free ones.
    Raises InvalidInput.
    """
    if not 1 <= len(members) <= limits.VALIDATORS_MAX:
        raise InvalidInput(f"{len(members)} members, allowed are 1 to {limits.VALIDATORS_MAX}")
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInput(f"{folder} is not empty; a consortium needs a new folder")
    settings = parse_parameters(parameters or {})
    addresses = _addresses(len(members), base_port)
    homes = _home_names([member for member, _ in members])
    offices = [folder / "organisations" / home if keys_apart else None for home in homes]
    cards = [
        init_member(folder / home, member, kind, organisation_keys=office)
        for home, (member, kind), office in zip(homes, members, offices, strict=True)
    ]
    genesis = assemble(name, Millis(created_ms), settings, cards)
    signatures = [sign_as_member(folder / home, genesis, office) for home, office in zip(homes, offices, strict=True)]
    signed = combine_signatures(genesis, signatures)
    created = []
    for home, (member, _), own, office in zip(homes, members, addresses, offices, strict=True):
        install_genesis(folder / home, signed)
        others = {other: addresses[i][0] for i, (other, _) in enumerate(members) if other != member}
        write_new(folder / home / "config.toml", render_config(own, others).encode())
        created.append(CreatedMember(member, folder / home, *own, office))
    return created


def default_members(count: int) -> list[tuple[str, str]]:
    """Two hospitals, an insurer and an agency; further ones are numbered hospitals."""
    return [DEFAULT_MEMBERS[i] if i < 4 else (f"Hospital {i + 1}", "hospital") for i in range(count)]


def render_config(own: tuple[Address, Address, Address], peers: Mapping[str, Address]) -> str:
    """A config.toml with these addresses and defaults for everything else."""
    p2p, client, ops = own
    lines = ["[p2p]", f'listen = "{p2p}"', "", "[p2p.peers]"]
    lines += [f'{json.dumps(name, ensure_ascii=False)} = "{address}"' for name, address in peers.items()]
    lines += ["", "[client]", f'listen = "{client}"', "", "[ops]", f'listen = "{ops}"']
    return "\n".join(lines) + "\n"


def _addresses(count: int, base: int) -> list[tuple[Address, Address, Address]]:
    if base == 0:
        ports = _free_ports(3 * count)
    else:
        last = base + PORTS_PER_MEMBER * (count - 1) + 2
        if not (base >= 1024 and last <= 65_535):
            raise InvalidInput(f"ports {base} to {last}, allowed are 1024 to 65535 (0 = any free ones)")
        ports = [base + PORTS_PER_MEMBER * member + port for member in range(count) for port in range(3)]
    loopback = [Address("127.0.0.1", port) for port in ports]
    return [(loopback[i], loopback[i + 1], loopback[i + 2]) for i in range(0, 3 * count, 3)]


def _free_ports(count: int) -> list[int]:
    """Distinct ports that were free a moment ago, from a random one on.

    Below those that the system gives to outgoing connections: one of these could take a port before its node does. And
    others may be looking, too.
    """
    first, beyond = PORTS_OF_ONES_OWN
    start, size = secrets.randbelow(beyond - first), beyond - first
    found: list[int] = []
    with ExitStack() as held:
        for port in (first + (start + step) % size for step in range(size)):
            probe = held.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise InvalidInput(f"{count} free ports are wanted between {first} and {beyond}, there are {len(found)}")


def _home_names(names: Sequence[str]) -> list[str]:
    """A folder name for each member: its name in small letters, numbered where that is empty or taken."""
    found: list[str] = []
    for number, name in enumerate(names, 1):
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        found.append(slug if slug and slug not in found else f"member-{number}")
    return found
