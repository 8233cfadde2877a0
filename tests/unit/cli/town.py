"""A consortium of four homes with one node that serves a chain in memory over its real client port."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
from click.testing import CliRunner, Result
from msgspec.structs import replace

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Founding
from p2pledger.cli import clock
from p2pledger.cli.main import exit_status, root
from p2pledger.consensus.certificates import build_certificate
from p2pledger.consensus.messages import Certificate, ballot_statement
from p2pledger.health import queries
from p2pledger.health.application import HealthApplication
from p2pledger.network.api import BlockReply, GetBlock, GetStatus, Reply, Request, StatusReply, ValidatorStatus
from p2pledger.network.clients import ClientServer, Session
from p2pledger.node.ceremony import create_consortium
from p2pledger.node.home import Home
from p2pledger.primitives.ids import Epoch, Height, View
from tests.unit.client.chain import Chain
from tests.unit.client.nodes import HonestNode
from tests.unit.execution.ledger import GENESIS_MS, Ledger

NAMES = ("City Hospital", "Lakeside Hospital", "Mutual Health Fund", "Public Health Agency")


class HomesChain(Chain):
    """A chain whose members live in homes; nobody is registered yet."""

    def __init__(self, homes: list[Home]) -> None:
        self.keys = {home.validator: home.keys.consensus for home in homes}
        self.headers = []
        self.effects_at = {}
        self.receipts = {}
        self.on_block = []
        self._tree = {}
        Ledger.__init__(self, HealthApplication(), homes[0].founding)

    def certificate(self, header: Header, *_: Any) -> Certificate:
        empty = Certificate("commit", Epoch(0), View(0), header.height, header.hash, ())
        signatures = {i: k.sign(ballot_statement(self.chain, empty, i)) for i, k in self.keys.items()}
        place = (Epoch(0), View(0), header.height)
        return build_certificate("commit", place, header.hash, signatures, self.founding.validators)


class TownNode(HonestNode):
    """Also says how it is."""

    async def _answer(self, session: Session, request: Request) -> Reply:
        if isinstance(request, GetStatus):
            return status_of(self.chain, request.id)
        if isinstance(request, GetBlock):
            reply = await super()._answer(session, request)
            assert isinstance(reply, BlockReply)
            done = [one for one in self.chain.receipts.values() if one.receipt.height == reply.header.height]
            return replace(reply, receipts=tuple(done), transactions=len(done))
        return await super()._answer(session, request)


def status_of(chain: Chain, number: int) -> StatusReply:
    cards = chain.founding.genesis.cards
    validators = chain.founding.validators
    peers = tuple(ValidatorStatus(card.name, card.node, True, Height(chain.height)) for card in cards[1:])
    return StatusReply(
        id=number,
        chain=chain.chain,
        version="0",
        node=cards[0].node,
        is_ready=True,
        epoch=0,
        view=0,
        is_active=True,
        height=Height(chain.height),
        executed=Height(chain.height),
        block_time_ms=chain.now_ms,
        primary=cards[0].name,
        n=validators.n,
        f=chain.founding.tolerated_faults,
        q=validators.q,
        pending_transactions=0,
        view_changes=0,
        equivocations=(),
        peers=peers,
    )


@dataclass
class Town:
    """Homes, a chain, and the port that serves it; `run` types commands."""

    folder: Path
    homes: list[Home]
    chain: HomesChain
    port: int

    @property
    def founding(self) -> Founding:
        return self.chain.founding

    def home(self, name: str = NAMES[0]) -> Path:
        return next(home.layout.root for home in self.homes if home.card.name == name)

    def file(self, name: str, content: str | bytes | None = None) -> Path:
        """A path in the town's folder, written where there is content."""
        path = self.folder / name
        if content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def as_organisation(self, name: str = NAMES[0]) -> list[str]:
        return ["--home", str(self.home(name)), *self.network]

    def as_person(self, wallet: str, at: str = NAMES[0]) -> list[str]:
        return [*self.network, "--genesis", str(self.genesis), "--wallet", str(self.folder / wallet), "--at", at]

    @property
    def genesis(self) -> Path:
        return self.homes[0].layout.genesis

    @property
    def network(self) -> list[str]:
        return ["--node", f"127.0.0.1:{self.port}={self.homes[0].card.name}"]

    def enrol(self, wallet: str, kind: str, at: str = NAMES[0]) -> str:
        """A new wallet whose owner is registered; the id."""
        run("wallet", "init", self.folder / wallet, "--no-passphrase")
        draft, signed = self.file(f"{wallet}.draft"), self.file(f"{wallet}.signed")
        run("identity", "register", *self.as_person(wallet, at), "--kind", kind, "--to", draft)
        run("tx", "sign", draft, *self.as_organisation(at), "--to", signed)
        (event,) = json.loads(run("tx", "submit", signed, *self.as_person(wallet, at), "--output", "json").stdout)[
            "events"
        ]
        return str(event["did"])


def run(*arguments: object, expect: int = 0, input: str | None = None) -> Result:
    """A command as people type it, with the exit status that it must end with."""
    result = CliRunner().invoke(root, [str(argument) for argument in arguments], input=input)
    error = result.exception
    if error is not None and not isinstance(error, SystemExit):
        assert exit_status(error) == expect, f"{type(error).__name__}: {error}"
    else:
        assert result.exit_code == expect, result.output
    return result


def said(result: Result) -> str:
    """What a command that failed has to say."""
    return str(result.exception) if not isinstance(result.exception, SystemExit) else result.stderr


@contextmanager
def town_in(folder: Path, monkeypatch: Any) -> Iterator[Town]:
    """The town, served from a thread while the block lasts; everybody's clock is the chain's."""
    members = [(NAMES[0], "hospital"), (NAMES[1], "hospital"), (NAMES[2], "insurer"), (NAMES[3], "agency")]
    made = create_consortium(folder / "homes", members, name="Town", created_ms=GENESIS_MS, base_port=0, parameters={})
    homes = [Home.load(one.home, {}) for one in made]
    chain = HomesChain(homes)
    chain.tick()
    chain.tick()
    monkeypatch.setattr(clock, "now_ms", lambda: chain.now_ms)
    with served(chain, homes[0]) as port:
        homes[0].layout.ports.write_text(json.dumps({"client": port}))
        yield Town(folder, homes, chain, port)


@contextmanager
def served(chain: HomesChain, home: Home) -> Iterator[int]:
    """The chain behind the client port of a member's node; the port."""
    node = TownNode(chain)
    server = ClientServer(
        home.keys.node,
        home.card.certificate,
        chain.chain,
        node.answer,
        lambda account: queries.role_of(account, chain.state),
        feeder=node.next_page,
    )
    ready, place = threading.Event(), {}

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            place["port"] = await nursery.start(server.serve, "127.0.0.1", 0)
            place["stop"] = nursery.cancel_scope.cancel
            place["token"] = trio.lowlevel.current_trio_token()
            ready.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    ready.wait()
    try:
        yield place["port"]
    finally:
        trio.from_thread.run_sync(place["stop"], trio_token=place["token"])
        thread.join()
