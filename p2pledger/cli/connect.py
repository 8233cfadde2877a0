"""From options to a ledger: which chain, which nodes, and in whose name a command asks.

The chain and the nodes come from --genesis and --node, or from a member's home. In whose name: with --wallet as the
person that this wallet is at the organisation --at; else as the organisation whose home it is; else as a stranger,
who may look at what is public.
"""

import functools
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from p2pledger.cli.output import Session, with_session
from p2pledger.primitives.errors import ConfigError, InvalidInput, Unavailable, Unreachable

if TYPE_CHECKING:
    from p2pledger.chain.genesis import Card, Founding
    from p2pledger.client.identities import OpenAs
    from p2pledger.client.keyring import OrganisationWallet, Persona, Wallet, WalletFile
    from p2pledger.client.ledger import LedgerClient
    from p2pledger.client.links import Node
    from p2pledger.node.home import Home
    from p2pledger.primitives.crypto import SigningKey
    from p2pledger.primitives.ids import AccountKey

T = TypeVar("T")

FILE = click.Path(dir_okay=False, path_type=Path)
NODE_FORM = "HOST:PORT=NODE"


@dataclass(frozen=True, slots=True)
class Connection:
    """What the options of a command say about the ledger."""

    session: Session
    genesis_file: Path | None
    node_texts: tuple[str, ...]
    wallet_file: Path | None
    at: str | None

    # Which chain, which nodes

    def founding(self) -> "Founding":
        """The genesis in --genesis or in the home; raises ConfigError."""
        from p2pledger.chain.genesis import GENESIS_BYTES_MAX, Founding, parse_genesis
        from p2pledger.node.home import Layout, load_founding, read_bounded

        if self.genesis_file is None:
            return load_founding(Layout(self._home_folder()))
        try:
            return Founding(parse_genesis(read_bounded(self.genesis_file, GENESIS_BYTES_MAX)))
        except (FileNotFoundError, InvalidInput) as error:
            raise ConfigError(f"genesis {self.genesis_file}: {error}") from error

    def nodes(self) -> "list[Node]":
        """The nodes in --node, or the home's own; raises InvalidInput, ConfigError."""
        if self.node_texts:
            cards = self.founding().genesis.cards
            return [_node(text, cards) for text in self.node_texts]
        if self.genesis_file is not None:
            raise InvalidInput(f"--genesis without --node: say where a node is, as --node {NODE_FORM}")
        return [own_node(self.home())]

    def home(self) -> "Home":
        """The member's home, everything in it checked; raises ConfigError."""
        self._home_folder()
        return self.session.load_home()

    def _home_folder(self) -> Path:
        folder = self.session.home
        if not folder.is_dir():
            raise ConfigError(
                f"{folder} is not a home; name one with --home, or say --genesis FILE and --node {NODE_FORM}"
            )
        return folder

    # In whose name

    def card(self, text: str) -> "Card":
        """The founding member of this name or id; raises InvalidInput that lists the members."""
        return card_named(self.founding().genesis.cards, text)

    def wallet(self) -> "Wallet":
        """The wallet in --wallet; asks for its passphrase. Raises InvalidInput, ConfigError."""
        from p2pledger.client.keyring import Wallet

        if self.wallet_file is None:
            raise InvalidInput("this needs a person's key: say --wallet FILE and --at ORGANISATION")
        return Wallet.load(self.wallet_file, ask_passphrase)

    def wallet_to_change(self) -> "WalletFile":
        """The wallet in --wallet with its place and passphrase; raises InvalidInput, ConfigError."""
        from p2pledger.client.keyring import open_wallet

        if self.wallet_file is None:
            raise InvalidInput("this changes a wallet: say --wallet FILE")
        return open_wallet(self.wallet_file, ask_passphrase)

    def persona(self) -> "Persona":
        """Who the owner of the wallet is at the organisation --at; raises InvalidInput, ConfigError."""
        cards = self.founding().genesis.cards
        if self.at is None:
            names = ", ".join(repr(card.name) for card in cards)
            raise InvalidInput(f"--wallet without --at: a wallet is another person at each of {names}")
        return self.wallet().at(card_named(cards, self.at).organisation)

    def organisation(self) -> "OrganisationWallet":
        """The keys of the organisation whose home it is, rotated or not; raises ConfigError."""
        from p2pledger.client.keyring import OrganisationWallet
        from p2pledger.node.home import load_seed

        home = self.home()
        own, now = home.office(), home.layout.account_now
        account = load_seed(now) if now.exists() else own.account.seed
        return OrganisationWallet.of_seeds(home.card.organisation, account, own.box.seed)

    def signer_of(self, signers: "Sequence[AccountKey]") -> "SigningKey":
        """As `signer`; the organisation's next key where that one is asked for and the present one is not."""
        from p2pledger.node.home import load_seed
        from p2pledger.primitives.crypto import SigningKey

        present = self.signer()
        if self.wallet_file is not None or present.public in signers:
            return present
        path = self.home().layout.account_next
        coming = SigningKey(load_seed(path)) if path.exists() else present
        return coming if coming.public in signers else present

    def signer(self) -> "SigningKey":
        """The person's key where a wallet is named, else the organisation's; raises InvalidInput, ConfigError."""
        return self.organisation().account if self.wallet_file is None else self.persona().signing

    def about(self, pid: bytes | None) -> "tuple[SigningKey, bytes]":
        """(who asks, about which patient): a wallet's owner asks about itself unless it says otherwise.

        Raises InvalidInput where an organisation does not say about whom, ConfigError.
        """
        if self.wallet_file is not None:
            persona = self.persona()
            return persona.signing, persona.did if pid is None else pid
        if pid is None:
            raise InvalidInput("say about whom: as an organisation --pid HEX, as a patient --wallet FILE and --at NAME")
        return self.organisation().account, pid

    def anybody(self) -> "SigningKey":
        """As `signer`, or a stranger's fresh key where there is neither wallet nor home."""
        import secrets

        from p2pledger.primitives.crypto import SigningKey

        if self.wallet_file is None and not self.session.home.is_dir():
            return SigningKey(secrets.token_bytes(32))
        return self.signer()

    # Asking

    def ask(self, account: "SigningKey", work: "Callable[[LedgerClient], Awaitable[T]]") -> T:
        """What `work` makes of a client in the name of `account`. Raises Unreachable where no node listens."""

        async def alone(open_as: "OpenAs") -> T:
            async with open_as(account) as ledger:
                return await work(ledger)

        return self.ask_as_many(alone)

    def ask_as_many(self, work: "Callable[[OpenAs], Awaitable[T]]") -> T:
        """As `ask`, for one who is another at each organisation: `work` opens a client for each of its keys."""
        import trio

        from p2pledger.cli.clock import now_ms
        from p2pledger.client.ledger import open_ledger

        founding, nodes = self.founding(), self.nodes()

        async def main() -> T:
            try:
                return await work(lambda account: open_ledger(founding, nodes, account, now_s=lambda: now_ms() / 1000))
            except Unavailable as error:
                if await _anybody_listens(nodes):
                    raise
                raise Unreachable(f"no node answers; {error}") from error

        return trio.run(main)


def with_connection(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say where the ledger is and who asks; its first argument is the Connection."""

    @click.option("--genesis", "genesis_file", type=FILE, envvar="P2PLEDGER_GENESIS", help="The signed genesis.")
    @click.option(
        "--node",
        "node_texts",
        multiple=True,
        metavar=NODE_FORM,
        envvar="P2PLEDGER_NODES",
        help="A node's client port and its id or member's name; repeat. [default: the home's own node]",
    )
    @click.option("--wallet", "wallet_file", type=FILE, envvar="P2PLEDGER_WALLET", help="Act as the owner of a wallet.")
    @click.option("--at", envvar="P2PLEDGER_AT", metavar="ORGANISATION", help="Who the wallet's owner is: at whom.")
    @with_session
    @functools.wraps(command)
    def wrapped(
        session: Session,
        *args: Any,
        genesis_file: Path | None,
        node_texts: tuple[str, ...],
        wallet_file: Path | None,
        at: str | None,
        **options: Any,
    ) -> Any:
        return command(Connection(session, genesis_file, node_texts, wallet_file, at), *args, **options)

    return wrapped


def ask_passphrase(path: Path) -> str:
    """The passphrase of a sealed key file, from the terminal."""
    return str(click.prompt(f"Passphrase of {path}", hide_input=True, err=True))


def card_named(cards: "Sequence[Card]", text: str) -> "Card":
    """The member of this public name or this id in hexadecimal digits; raises InvalidInput."""
    for card in cards:
        if text in (card.name, card.organisation.hex()) or text.lower() == card.name.lower():
            return card
    raise InvalidInput(f"no organisation is called {text!r}; members are {', '.join(card.name for card in cards)}")


def _node(text: str, cards: "Sequence[Card]") -> "Node":
    from p2pledger.client.links import Node
    from p2pledger.node.config import Address

    where, separator, who = text.partition("=")
    if not separator:
        raise InvalidInput(f"node {text!r} is not {NODE_FORM}")
    try:
        address = Address.parse(where)
    except ConfigError as error:
        raise InvalidInput(f"node {text!r}: {error}") from error
    known = {card.node.hex(): card.node for card in cards}
    if re.fullmatch(r"[0-9a-fA-F]{64}", who):
        if who.lower() not in known:
            raise InvalidInput(f"node {text!r}: the genesis knows no node {who.lower()}")
        return Node(address.host, address.port, known[who.lower()])
    return Node(address.host, address.port, card_named(cards, who).node)


def own_node(home: "Home") -> "Node":
    """Where the home's node listens: what it wrote when it started, else what it is told to."""
    import json

    from p2pledger.client.links import Node

    listen = home.config.client_listen
    try:
        port = int(json.loads(home.layout.ports.read_text())["client"])
    except (OSError, ValueError, KeyError, TypeError):
        port = listen.port
    if port == 0:
        raise Unreachable(f"the node of {home.layout.root} listens on any free port and has not written which")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104
    return Node(host, port, home.node)


async def _anybody_listens(nodes: "Sequence[Node]") -> bool:
    import trio

    for node in nodes:
        with trio.move_on_after(1.0):
            try:
                await (await trio.open_tcp_stream(node.host, node.port)).aclose()
            except OSError:
                continue
            return True
    return False
