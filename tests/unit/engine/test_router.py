"""Every message reaches every node while the graph of links is connected; in a full mesh it crosses each link once."""

from collections import Counter, deque
from itertools import combinations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pledger.gossip import Router, Transmission
from p2pledger.messages import BatchRequest, Inquiry, Links, Relay, parse_message
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import ChainId, NodeId
from p2pledger.sim.founding import seeded_key

CHAIN = ChainId(bytes(32))
Edges = set[tuple[int, int]]


class Graph:
    """Routers joined by perfect links."""

    def __init__(self, n: int, edges: Edges) -> None:
        keys: list[SigningKey] = [seeded_key("router", i) for i in range(n)]
        self.ids = [NodeId(key.public) for key in keys]
        self.routers = [Router(CHAIN, key, self.ids, serial=0) for key in keys]
        self.heard: list[list[bytes]] = [[] for _ in keys]
        self.crossed: Counter[tuple[int, int]] = Counter()
        self._under_way: deque[tuple[int, int, bytes]] = deque()
        for a, b in sorted(edges):
            self.send(a, self.routers[a].link_up(self.ids[b]))
            self.send(b, self.routers[b].link_up(self.ids[a]))
        self.settle()
        self.crossed.clear()

    def send(self, source: int, transmissions: list[Transmission]) -> None:
        for transmission in transmissions:
            for node in transmission.nodes:
                self._under_way.append((source, self.ids.index(node), transmission.body))

    def settle(self) -> None:
        while self._under_way:
            source, target, body = self._under_way.popleft()
            self.crossed[source, target] += 1
            message = parse_message(body)
            router = self.routers[target]
            if isinstance(message, Links):
                router.learn_links(self.ids[source], message)
            elif isinstance(message, Relay):
                inner, carried = router.on_relay(self.ids[source], message)
                self.send(target, carried)
                if inner is not None:
                    self.heard[target].append(inner)
            else:
                self.heard[target].append(body)


def line(n: int) -> Edges:
    return {(i, i + 1) for i in range(n - 1)}


def ring(n: int) -> Edges:
    return line(n) | {(0, n - 1)}


def star(n: int) -> Edges:
    return {(0, i) for i in range(1, n)}


def mesh(n: int) -> Edges:
    return set(combinations(range(n), 2))


@pytest.mark.parametrize("shape", [line, ring, star, mesh])
@pytest.mark.parametrize("n", [2, 5, 9])
def test_it_reaches_everybody_once(shape: type, n: int) -> None:
    """Lines, rings, stars and meshes: each node hears each message exactly once."""
    for origin in range(n):
        graph = Graph(n, shape(n))
        graph.send(origin, graph.routers[origin].broadcast(Inquiry(7)))
        graph.settle()
        assert [len(heard) for heard in graph.heard] == [int(i != origin) for i in range(n)]


@settings(deadline=None)
@given(st.integers(2, 8), st.randoms(use_true_random=False), st.floats(0, 1))
def test_it_reaches_everybody_in_any_connected_graph(n: int, chance: object, density: float) -> None:
    edges = {(chance.randrange(i), i) for i in range(1, n)}  # type: ignore[attr-defined]
    edges |= {pair for pair in mesh(n) if chance.random() < density}  # type: ignore[attr-defined]
    graph = Graph(n, edges)
    graph.send(0, graph.routers[0].broadcast(Inquiry(7)))
    graph.settle()
    assert all(len(heard) == 1 for heard in graph.heard[1:])
    target = chance.randrange(1, n)  # type: ignore[attr-defined]
    graph.send(0, graph.routers[0].send(graph.ids[target], BatchRequest(())))
    graph.settle()
    assert [len(heard) for heard in graph.heard[1:]] == [1 + (i == target) for i in range(1, n)]


def test_in_a_full_mesh_it_crosses_each_link_at_most_once() -> None:
    graph = Graph(7, mesh(7))
    graph.send(3, graph.routers[3].broadcast(Inquiry(1)))
    graph.settle()
    assert dict(graph.crossed) == {(3, i): 1 for i in range(7) if i != 3}


def test_a_forged_or_strange_relay_is_refused() -> None:
    """Only what its origin signed is carried on."""
    graph = Graph(3, line(3))
    (transmission,) = graph.routers[0].broadcast(Inquiry(1))
    relay = parse_message(transmission.body)
    assert isinstance(relay, Relay)
    for bad in (
        msgspec.structs.replace(relay, body=relay.body + b"x"),
        msgspec.structs.replace(relay, serial=relay.serial + 1),
        msgspec.structs.replace(relay, origin=graph.ids[2]),
        msgspec.structs.replace(relay, origin=NodeId(bytes(32))),
    ):
        with pytest.raises(InvalidInput):
            graph.routers[1].on_relay(graph.ids[0], bad)


def test_what_was_seen_is_not_carried_again_even_when_it_is_forgotten() -> None:
    """A replay of old relays is no amplifier."""
    graph = Graph(3, line(3))
    first = parse_message(graph.routers[0].broadcast(Inquiry(1))[0].body)
    assert isinstance(first, Relay)
    router = graph.routers[1]
    assert router.on_relay(graph.ids[0], first)[0] is not None
    router._forgotten[graph.ids[0]] = first.serial
    router._seen.clear()
    assert router.on_relay(graph.ids[0], first) == (None, [])
