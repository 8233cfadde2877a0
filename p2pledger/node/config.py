"""A node's own settings: where it listens, whom it dials, how much it takes in.

What all nodes must agree on stands in the genesis parameters and never here: two nodes with different files differ in
how busy they get, not in which blocks they accept (T35). Precedence: flag > P2PLEDGER_SECTION__KEY > file > default.
Every mistake raises ConfigError with the dotted path, the value and the rule.
"""

import re
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_origin

import msgspec
from msgspec import Meta

from p2pledger.primitives import limits
from p2pledger.primitives.errors import ConfigError

ENV_PREFIX = "P2PLEDGER_"
CONFIG_BYTES_MAX = 256 * 1024
MIB = 1024 * 1024

Positive = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Address(NamedTuple):
    """Where somebody listens or is dialled; port 0 = any free one."""

    host: str
    port: int

    @staticmethod
    def parse(text: str) -> "Address":
        """`host:port` or `[v6]:port`; raises ConfigError."""
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text)
        if match is None or int(match[3]) > 65_535:
            raise ConfigError(f"{text!r} is not host:port (IPv6 as [::1]:7420)")
        return Address(match[1] or match[2], int(match[3]))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; names other than localhost do not count."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file."""


class NodeSection(_Section, frozen=True):
    """The process itself."""

    data: str = "data"
    """Folder of the stores, inside the home or absolute."""
    map_gib: Annotated[int, Meta(ge=1, le=4096)] = 64
    """Address space reserved for each store; disk is used only as it fills."""
    free_mib_min: Annotated[int, Meta(ge=0, le=MIB)] = 256
    """A node with less free disk does not start (T30)."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"


class P2PSection(_Section, frozen=True):
    """Links to the other nodes."""

    listen: str = "0.0.0.0:7420"
    advertise: str = ""
    """Where others reach this node, if that is not where it listens."""
    peers: dict[str, str] = msgspec.field(default_factory=dict)
    """Member name, organisation or node id in hexadecimal -> host:port."""
    handshakes_max: Annotated[int, Meta(ge=1, le=1024)] = 64
    """Connections that have not shown their certificate yet (T3)."""
    queue_bytes_max: Annotated[int, Meta(ge=limits.FRAME_BYTES_MAX, le=1024 * MIB)] = 32 * MIB
    """Unsent bytes for one peer; beyond it the link is dropped and dialled again, and what was lost is asked for."""
    bytes_per_s_max: Annotated[int, Meta(ge=limits.FRAME_BYTES_MAX)] = 64 * MIB
    """What one peer may send; above it we read more slowly."""
    messages_per_s_max: Positive = 20_000
    idle_s_max: Annotated[int, Meta(ge=5, le=3600)] = 30
    """A link that stays silent for longer is closed and dialled again."""


class ClientSection(_Section, frozen=True):
    """The port for wallets and gateways."""

    listen: str = "127.0.0.1:7421"
    connections_max: Annotated[int, Meta(ge=1, le=65_536)] = 256
    requests_max: Annotated[int, Meta(ge=1, le=65_536)] = 1024
    """Unanswered requests of one client; above it we read more slowly."""
    pending_bytes_max: Annotated[int, Meta(ge=limits.CLIENT_FRAME_BYTES_MAX)] = 16 * MIB


class OpsSection(_Section, frozen=True):
    """Health and metrics, without a password and therefore on loopback only."""

    listen: str = "127.0.0.1:7422"


class VerifySection(_Section, frozen=True):
    """Signature checking."""

    threads: Annotated[int, Meta(ge=-1, le=64)] = -1
    """0 = in the main thread; -1 = one fewer than there are processors, at least one."""


class MempoolSection(_Section, frozen=True):
    """Transactions that wait at this node. Smaller is allowed; larger than the built-in bounds is not."""

    transactions_max: Annotated[int, Meta(ge=1, le=limits.MEMPOOL_TRANSACTIONS_MAX)] = limits.MEMPOOL_TRANSACTIONS_MAX
    bytes_max: Annotated[int, Meta(ge=limits.TRANSACTION_BYTES_MAX, le=limits.MEMPOOL_BYTES_MAX)] = (
        limits.MEMPOOL_BYTES_MAX
    )


class ReleaseSection(_Section, frozen=True):
    """This validator's part in the keys that records are sealed to."""

    begin: Literal["auto", "manual"] = "auto"
    """auto: begin the ceremony for the first joint key once this node is linked to its peers; a later key, or new
    shares, only 'p2pledger sharing' begins. What others begin, this validator joins either way."""


class VaultSection(_Section, frozen=True):
    """The vault and its service, a process of its own."""

    store: str = ""
    """s3://BUCKET/PREFIX; empty: the folder `vault` in the home."""
    s3_endpoint: str = ""
    """Of a store that is not Amazon's, like https://s3.example.org."""
    s3_region: str = "us-east-1"
    listen: str = "127.0.0.1:7423"
    ops_listen: str = "127.0.0.1:7424"
    replicas: dict[str, str] = msgspec.field(default_factory=dict)
    """Who keeps copies for us: member name, organisation or node id in hexadecimal -> host:port of its vault."""
    copies: Annotated[int, Meta(ge=0, le=50)] = 0
    """Durable ones before a record counts as kept, our own included; 0: two where there are replicas, else one."""
    sessions_max: Annotated[int, Meta(ge=4, le=65_536)] = 64


class Config(_Section, frozen=True):
    """All settings of one node."""

    node: NodeSection = NodeSection()
    p2p: P2PSection = P2PSection()
    client: ClientSection = ClientSection()
    ops: OpsSection = OpsSection()
    verify: VerifySection = VerifySection()
    mempool: MempoolSection = MempoolSection()
    release: ReleaseSection = ReleaseSection()
    vault: VaultSection = VaultSection()

    @property
    def p2p_listen(self) -> Address:
        return Address.parse(self.p2p.listen)

    @property
    def client_listen(self) -> Address:
        return Address.parse(self.client.listen)

    @property
    def ops_listen(self) -> Address:
        return Address.parse(self.ops.listen)

    @property
    def vault_listen(self) -> Address:
        return Address.parse(self.vault.listen)

    @property
    def vault_ops_listen(self) -> Address:
        return Address.parse(self.vault.ops_listen)

    @property
    def vault_replicas(self) -> dict[str, Address]:
        """Name or id as written -> address; `Home.vault_replicas` turns them into node ids."""
        return {name: Address.parse(address) for name, address in self.vault.replicas.items()}

    @property
    def vault_copies(self) -> int:
        """How many durable copies make a record kept."""
        return self.vault.copies or min(2, 1 + len(self.vault.replicas))

    @property
    def p2p_peers(self) -> dict[str, Address]:
        """Name or id as written -> address; `Home.peers` turns them into node ids."""
        return {name: Address.parse(address) for name, address in self.p2p.peers.items()}

    def verify_threads(self, processors: int) -> int:
        """How many threads check signatures on a machine with so many processors."""
        return max(1, processors - 1) if self.verify.threads < 0 else self.verify.threads


_SECTIONS: dict[str, type[_Section]] = {
    "node": NodeSection,
    "p2p": P2PSection,
    "client": ClientSection,
    "ops": OpsSection,
    "verify": VerifySection,
    "mempool": MempoolSection,
    "release": ReleaseSection,
    "vault": VaultSection,
}


def load_config(path: Path, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Config:
    """The settings of a home; a missing file means defaults. `flags` maps `section.key` to a value or None."""
    settings = _read(path)
    _convert(settings, str(path))  # so that a mistake in the file is blamed on the file
    for variable, value in _environment(environ).items():
        section, key, parsed = value
        settings.setdefault(section, {})[key] = parsed
        _convert(settings, variable)
    for dotted, given in (flags or {}).items():
        if given is not None:
            section, key = dotted.split(".")
            _field_type(section, key, f"flag for {dotted}")
            settings.setdefault(section, {})[key] = given
            _convert(settings, f"flag for {dotted}")
    config = _convert(settings, str(path))
    _check_addresses(config)
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES_MAX + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > CONFIG_BYTES_MAX:
        raise ConfigError(f"{path} is longer than {CONFIG_BYTES_MAX} bytes")
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _environment(environ: Mapping[str, str]) -> dict[str, tuple[str, str, Any]]:
    """Variables with a double underscore are settings; an unknown one is a mistake, not a stranger's."""
    found = {}
    for variable in sorted(environ):
        if variable.startswith(ENV_PREFIX) and "__" in variable:
            section, _, key = variable.removeprefix(ENV_PREFIX).lower().partition("__")
            kind = _field_type(section, key, variable)
            found[variable] = (section, key, _parse(variable, environ[variable], kind))
    return found


def _field_type(section: str, key: str, source: str) -> Any:
    if section not in _SECTIONS:
        raise ConfigError(f"{source}: {section!r} is no section, known are {', '.join(_SECTIONS)}")
    fields = {field.name: field.type for field in msgspec.structs.fields(_SECTIONS[section])}
    if key not in fields:
        raise ConfigError(f"{source}: {section}.{key} is no setting, known are {', '.join(fields)}")
    return fields[key]


def _parse(variable: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is dict:  # name=host:port,name=host:port
        pairs = [item.partition("=") for item in text.split(",") if item.strip()]
        if any(not separator for _, separator, _ in pairs):
            raise ConfigError(f"{variable}={text!r} is not name=host:port, several with commas between")
        return {name.strip(): value.strip() for name, _, value in pairs}
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{variable}={text!r}: {error}") from error


def _convert(settings: dict[str, Any], source: str) -> Config:
    try:
        return msgspec.convert(settings, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_explain(str(error), settings)}") from error


def _explain(message: str, settings: dict[str, Any]) -> str:
    """msgspec's words with the dotted path in front and the offending value behind."""
    rule, _, where = message.partition(" - at `$")
    path = [part for part in re.split(r"[.`]", where) if part]
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", rule)
    if unknown:
        return f"{'.'.join([*path, unknown[1]])} is not a known setting"
    value: Any = settings
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return f"{'.'.join(path)}: {rule}"
        value = value[part]
    return f"{'.'.join(path)} = {value!r}: {rule}"


def _check_addresses(config: Config) -> None:
    named = {
        "p2p.listen": config.p2p.listen,
        "client.listen": config.client.listen,
        "ops.listen": config.ops.listen,
        "vault.listen": config.vault.listen,
        "vault.ops_listen": config.vault.ops_listen,
        **{f"vault.replicas.{name}": address for name, address in config.vault.replicas.items()},
        **{f"p2p.peers.{name}": address for name, address in config.p2p.peers.items()},
    }
    if config.p2p.advertise:
        named["p2p.advertise"] = config.p2p.advertise
    for path, text in named.items():
        try:
            address = Address.parse(text)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        if path.startswith(("p2p.peers.", "p2p.advertise", "vault.replicas.")) and address.port == 0:
            raise ConfigError(f"{path} = {text!r}: others cannot dial port 0")
    for path, listen in (("ops.listen", config.ops.listen), ("vault.ops_listen", config.vault.ops_listen)):
        _check_loopback(path, listen)
    if config.vault.copies > 1 + len(config.vault.replicas):
        raise ConfigError(
            f"vault.copies = {config.vault.copies}: with {len(config.vault.replicas)} replicas there are at most "
            f"{1 + len(config.vault.replicas)}"
        )


def _check_loopback(path: str, text: str) -> None:
    if not Address.parse(text).is_loopback:
        raise ConfigError(
            f"{path} = {text!r}: the ops port asks nobody who they are, so it must be a loopback "
            "address; let a local agent fetch the metrics"
        )
