"""A member's home: its keys, its genesis, its settings and its stores, in one folder that is nobody else's business.

    keys/       consensus.key node.key account.key box.key    32-byte seeds in hexadecimal, 0600 in a 0700 folder
    node.crt.der  card.json  genesis  config.toml
    data/       ledger  state  releases
    shares/     seeds and shares of joint keys, 0600 in a 0700 folder
    deposits/   the keys to which one-time secrets are sealed, the same
    sign_floor  lock  ports.json

Account and box key are the organisation's, and may lie elsewhere (`Layout.organisation_keys`): the node starts without
them, so that who takes its home can neither act as the organisation nor open what it keeps.

`Home.load` raises ConfigError for everything a node must not start with, and says which command repairs it (T33).
"""

import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacl.bindings import crypto_scalarmult_base

from p2pledger.chain.genesis import (
    GENESIS_BYTES_MAX,
    Card,
    Founding,
    Genesis,
    SignedGenesis,
    check_genesis,
    parse_genesis,
)
from p2pledger.network.certificates import CERTIFICATE_BYTES_MAX, check_certificate
from p2pledger.node.config import Address, Config, load_config
from p2pledger.primitives.codec import decode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import ConfigError, InvalidInput
from p2pledger.primitives.ids import NodeId, ValidatorId

NODE_KEY_NAMES = ("consensus", "node")
ORGANISATION_KEY_NAMES = ("account", "box")
KEY_NAMES = (*NODE_KEY_NAMES, *ORGANISATION_KEY_NAMES)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie in a home."""

    root: Path
    organisation_keys: Path | None = None
    """Where account and box key lie; None: beside the node's."""

    def key(self, name: str) -> Path:
        return (self.office if name in ORGANISATION_KEY_NAMES else self.keys) / f"{name}.key"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def office(self) -> Path:
        """The folder of the organisation's keys."""
        return self.organisation_keys or self.keys

    @property
    def account_now(self) -> Path:
        """The account key that signs for the organisation where it has replaced the card's."""
        return self.office / "account.now"

    @property
    def account_next(self) -> Path:
        """The account key that is about to replace it."""
        return self.office / "account.next"

    @property
    def certificate(self) -> Path:
        return self.root / "node.crt.der"

    @property
    def card(self) -> Path:
        return self.root / "card.json"

    @property
    def genesis(self) -> Path:
        return self.root / "genesis"

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def sign_floor(self) -> Path:
        return self.root / "sign_floor"

    @property
    def shares(self) -> Path:
        """Seeds and shares of joint keys; secret, and not for backups (docs/operations.md)."""
        return self.root / "shares"

    @property
    def deposits(self) -> Path:
        """Deposit keys; secret, and to be backed up as keys are: what is sealed to them is never sealed anew."""
        return self.root / "deposits"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def ports(self) -> Path:
        return self.root / "ports.json"

    @property
    def vault(self) -> Path:
        """The folder of our own sealed records, where they do not lie in a bucket."""
        return self.root / "vault"

    @property
    def vault_copies(self) -> Path:
        """The folder of what we keep for other custodians, a folder for each."""
        return self.root / "vault-copies"

    @property
    def vault_lock(self) -> Path:
        return self.root / "vault.lock"

    @property
    def vault_audit(self) -> Path:
        """What the last `vault audit` found."""
        return self.root / "vault-audit.json"

    @property
    def vault_ports(self) -> Path:
        return self.root / "vault-ports.json"


class BoxKey:
    """An X25519 key pair from a 32-byte seed; its text form never shows the secret."""

    __slots__ = ("public", "seed")

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self.public: bytes = crypto_scalarmult_base(seed)

    def __repr__(self) -> str:
        return f"BoxKey(public={self.public.hex()})"


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """What a running node needs."""

    consensus: SigningKey
    node: SigningKey


@dataclass(frozen=True, slots=True)
class OrganisationKeys:
    """What an organisation acts and reads with."""

    account: SigningKey
    """Signs the organisation's transactions and the genesis: the card's key, even where another has replaced it."""
    box: BoxKey


@dataclass(frozen=True, slots=True)
class MemberKeys:
    """The four keys of a new member, one for each purpose."""

    account: SigningKey
    consensus: SigningKey
    node: SigningKey
    box: BoxKey

    @staticmethod
    def generate() -> "MemberKeys":
        """Fresh keys from the system's randomness."""
        account, consensus, node = (SigningKey(secrets.token_bytes(32)) for _ in range(3))
        return MemberKeys(account, consensus, node, BoxKey(secrets.token_bytes(32)))

    @property
    def seeds(self) -> dict[str, bytes]:
        """Name -> secret, for the one who stores them."""
        return {
            "account": self.account.seed,
            "consensus": self.consensus.seed,
            "node": self.node.seed,
            "box": self.box.seed,
        }


@dataclass(frozen=True)
class Home:
    """A home that a node may start from: everything in it has been checked against everything else."""

    layout: Layout
    keys: NodeKeys
    founding: Founding
    card: Card
    """This member's entry in the genesis."""
    config: Config
    organisation_keys: OrganisationKeys | None = None
    """None: they lie elsewhere."""

    @staticmethod
    def load(
        root: Path,
        environ: Mapping[str, str],
        flags: Mapping[str, Any] | None = None,
        organisation_keys: Path | None = None,
    ) -> "Home":
        """The home in `root`; `organisation_keys`: where those lie if not in it. Raises ConfigError."""
        layout = Layout(existing_home(root), organisation_keys)
        keys = load_node_keys(layout)
        own = load_organisation_keys(layout) if organisation_keys or _has_organisation_keys(layout) else None
        founding = load_founding(layout)
        card = _own_card(layout, keys, own, founding)
        config = load_config(_plain(layout.config), environ, flags)
        home = Home(layout, keys, founding, card, config, own)
        home.peers()  # an unknown name must not wait for the first dial
        home.vault_replicas()
        _plain(home.data)
        return home

    def office(self) -> OrganisationKeys:
        """The organisation's keys; raises ConfigError where they lie elsewhere."""
        if self.organisation_keys is None:
            raise ConfigError(
                f"the keys of {self.card.name!r} are not in {self.layout.keys}; say where account.key and box.key lie, "
                "with --organisation-keys or P2PLEDGER_ORGANISATION_KEYS"
            )
        return self.organisation_keys

    @property
    def node(self) -> NodeId:
        return self.card.node

    @property
    def validator(self) -> ValidatorId:
        return self.card.validator

    @property
    def data(self) -> Path:
        return self.layout.root / self.config.node.data

    @property
    def ledger(self) -> Path:
        return self.data / "ledger"

    @property
    def state(self) -> Path:
        return self.data / "state"

    @property
    def releases(self) -> Path:
        return self.data / "releases"

    def peers(self) -> dict[NodeId, Address]:
        """Node id -> where to dial it; raises ConfigError for a name that the genesis does not know."""
        return self._by_node("p2p.peers", self.config.p2p_peers)

    def vault_replicas(self) -> dict[NodeId, Address]:
        """Node id of who keeps copies for us -> where its vault is; raises ConfigError as `peers`."""
        return self._by_node("vault.replicas", self.config.vault_replicas)

    def _by_node(self, setting: str, addresses: Mapping[str, Address]) -> dict[NodeId, Address]:
        known: dict[str, NodeId] = {}
        for card in self.founding.genesis.cards:
            known |= {card.name: card.node, card.organisation.hex(): card.node, card.node.hex(): card.node}
        found: dict[NodeId, Address] = {}
        for name, address in addresses.items():
            node = known.get(name) or known.get(name.lower())
            if node is None:
                raise ConfigError(f"{setting}.{name}: the genesis knows no member, organisation or node of this name")
            if node == self.node:
                raise ConfigError(f"{setting}.{name}: that is this node itself")
            if node in found:
                raise ConfigError(f"{setting}.{name}: a second address of node {node.hex()}")
            found[node] = address
        return found


def home_path(flag: str | None, environ: Mapping[str, str]) -> Path:
    """--home > P2PLEDGER_HOME > XDG data folder."""
    if flag:
        return Path(flag)
    if environ.get("P2PLEDGER_HOME"):
        return Path(environ["P2PLEDGER_HOME"])
    data = environ.get("XDG_DATA_HOME")  # the standard says: ignore it unless absolute
    if not data or not Path(data).is_absolute():
        data = str(Path(environ.get("HOME") or "~").expanduser() / ".local" / "share")
    return Path(data) / "p2pledger"


def existing_home(root: Path) -> Path:
    """The folder; raises ConfigError where there is none."""
    if not root.is_dir():
        raise ConfigError(f"{root} is not a home: no such folder; make one with 'p2pledger member init --home {root}'")
    return root


def load_node_keys(layout: Layout) -> NodeKeys:
    """What the node runs with; raises ConfigError for a missing, malformed, shared or linked key."""
    _check_secret_folder(layout.keys)
    return NodeKeys(SigningKey(load_seed(layout.key("consensus"))), SigningKey(load_seed(layout.key("node"))))


def load_organisation_keys(layout: Layout) -> OrganisationKeys:
    """What the organisation acts and reads with; raises ConfigError as `load_node_keys`."""
    _check_secret_folder(layout.office)
    return OrganisationKeys(SigningKey(load_seed(layout.key("account"))), BoxKey(load_seed(layout.key("box"))))


def _has_organisation_keys(layout: Layout) -> bool:
    """Whether any is there: then both must be."""
    return any(os.path.lexists(layout.key(name)) for name in ORGANISATION_KEY_NAMES)


def load_seed(path: Path) -> bytes:
    """The 32 bytes of a key file that only its owner may read; raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise ConfigError(
            f"key file {path} is missing; restore it from the backup ('p2pledger member init' makes new ones)"
        ) from error
    except OSError as error:
        reason = "is a symbolic link; keys must lie in the home itself" if path.is_symlink() else error.strerror
        raise ConfigError(f"key file {path}: {reason}") from error
    with os.fdopen(descriptor, "rb") as file:
        _check_secret(path, os.fstat(file.fileno()))
        text = file.read(128)
    try:
        seed = bytes.fromhex(text.decode("ascii"))
    except ValueError as error:
        raise ConfigError(f"key file {path} does not hold hexadecimal digits") from error
    if len(seed) != 32:
        raise ConfigError(f"key file {path} holds {len(seed)} bytes, a key has 32")
    return seed


def _check_secret(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"key file {path} is not a plain file")
    if status.st_uid != os.geteuid():
        raise ConfigError(f"key file {path} belongs to user {status.st_uid}, this process runs as {os.geteuid()}")
    if status.st_mode & 0o077:
        raise ConfigError(
            f"key file {path} has mode {stat.S_IMODE(status.st_mode):04o}: others can read or change it; "
            f"run: chmod 600 {path}"
        )


def _check_secret_folder(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError as error:
        raise ConfigError(
            f"key folder {path} is missing; make a home with 'p2pledger member init' or restore it"
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"key folder {path} must be a folder, not a link or file")
    if status.st_mode & 0o077:
        raise ConfigError(
            f"key folder {path} has mode {stat.S_IMODE(status.st_mode):04o}: others can look into it; "
            f"run: chmod 700 {path}"
        )


def _plain(path: Path) -> Path:
    if path.is_symlink():
        raise ConfigError(f"{path} is a symbolic link; what a node trusts must lie in its home")
    return path


def load_founding(layout: Layout) -> Founding:
    """The installed genesis; raises ConfigError if there is none or not everybody has signed it."""
    path = _plain(layout.genesis)
    try:
        data = read_bounded(path, GENESIS_BYTES_MAX)
    except FileNotFoundError as error:
        raise ConfigError(
            f"genesis {path} is missing; install the signed one with 'p2pledger genesis install'"
        ) from error
    except InvalidInput as error:
        raise ConfigError(str(error)) from error
    try:
        return Founding(parse_genesis(data))
    except InvalidInput as error:
        if _is_unsigned(data):
            raise ConfigError(
                f"genesis {path} is not signed; every member signs it ('p2pledger genesis sign'), "
                "then 'p2pledger genesis combine' joins the signatures"
            ) from error
        raise ConfigError(f"genesis {path}: {error}") from error


def _is_unsigned(data: bytes) -> bool:
    try:
        decode(Genesis, data, GENESIS_BYTES_MAX)
    except InvalidInput:
        return False
    return True


def _own_card(layout: Layout, keys: NodeKeys, own: OrganisationKeys | None, founding: Founding) -> Card:
    """This member's card in the genesis; a foreign genesis, a foreign key or a foreign certificate is a ConfigError."""
    genesis = founding.genesis
    card = next((card for card in genesis.cards if card.node == keys.node.public), None)
    if card is None:
        members = ", ".join(card.name for card in genesis.cards)
        raise ConfigError(
            f"genesis {layout.genesis} is foreign: node key {keys.node.public.hex()} is not among its members "
            f"({members}); chain {founding.chain.hex()}"
        )
    held: list[tuple[str, bytes, bytes]] = [("consensus", card.validator, keys.consensus.public)]
    if own is not None:
        held += [("account", card.account, own.account.public), ("box", card.box, own.box.public)]
    for what, wanted, public in held:
        if wanted != public:
            raise ConfigError(
                f"key file {layout.key(what)} holds {public.hex()}, the genesis has {wanted.hex()} for {card.name!r}"
            )
    try:
        certificate = read_bounded(_plain(layout.certificate), CERTIFICATE_BYTES_MAX)
        check_certificate(certificate, card.node)
    except FileNotFoundError as error:
        raise ConfigError(f"certificate {layout.certificate} is missing; restore it from the backup") from error
    except InvalidInput as error:
        raise ConfigError(f"certificate {layout.certificate}: {error}") from error
    if certificate != card.certificate:
        raise ConfigError(f"certificate {layout.certificate} is not the one that the genesis registers")
    return card


def check_founding(signed: SignedGenesis) -> Founding:
    """A genesis that everybody signed and whose certificates fit their nodes; raises InvalidInput."""
    check_genesis(signed)
    for card in signed.genesis.cards:
        check_certificate(card.certificate, card.node)
    return Founding(signed)


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """The bytes of a file; raises InvalidInput if it is longer than `bytes_max` or unreadable, FileNotFoundError."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > bytes_max:
        raise InvalidInput(f"{path} is longer than {bytes_max} bytes")
    return data


def write_new(path: Path, data: bytes, mode: int = 0o644) -> None:
    """A new file, durable, never over an existing one: keys and a genesis are not overwritten by accident.

    Raises InvalidInput where something already lies there.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise InvalidInput(f"{path} already exists and is not overwritten") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_keys(layout: Layout, keys: MemberKeys) -> None:
    """The seeds, each in its own file; raises InvalidInput if a key is already there."""
    layout.keys.mkdir(parents=True, mode=0o700)
    layout.office.mkdir(parents=True, mode=0o700, exist_ok=True)
    for name, seed in keys.seeds.items():
        write_new(layout.key(name), seed.hex().encode() + b"\n", 0o600)


TEXT_BYTES_MAX = 64 * 1024


def read_text(path: Path) -> str:
    """A card or a signature; raises InvalidInput."""
    try:
        return read_bounded(path, TEXT_BYTES_MAX).decode()
    except FileNotFoundError as error:
        raise InvalidInput(f"{path} does not exist") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not text in UTF-8") from error
