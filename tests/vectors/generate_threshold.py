"""Writes threshold.json: run once when a format changes, `python -m tests.vectors.generate_threshold`.

Everything follows from fixed seeds, so that another implementation can be held to the bytes: a ceremony of four,
what it leaves, a capsule, shares of it, the one-time form of the same, and a resharing.

"""

import json
from pathlib import Path
from typing import Any

from p2pledger.primitives.codec import encode
from p2pledger.threshold.dkg import Deal
from p2pledger.threshold.key_release import share_context
from tests.unit.threshold.stage import (
    ACCESS,
    CHAIN,
    CONTENT_KEY,
    LABEL,
    READER,
    Keepers,
    Table,
    finished,
    long_term,
    one_time,
    random_of,
    resharing,
    seats,
)

PATH = Path(__file__).with_name("threshold.json")


def vectors() -> dict[str, Any]:
    """Everything, as hexadecimal."""
    done = finished(4)
    return {
        "chain": CHAIN.hex(),
        "label": encode(LABEL).hex(),
        "access": encode(ACCESS).hex(),
        "reader": READER.public.hex(),
        "content_key": CONTENT_KEY.hex(),
        "ceremony": _ceremony(done),
        "resharing": _ceremony(resharing(done).run()),
        "long_term": _released(long_term(4)),
        "one_time": _released(one_time(4)),
    }


def _ceremony(done: Table) -> dict[str, Any]:
    return {
        "id": encode(done.ceremony.id).hex(),
        "boxes": [box.hex() for box in done.ceremony.boxes if box is not None],
        "deals": {str(dealer): _deal(deal) for dealer, deal in done.deals.items()},
        "key": encode(done.key).hex(),
        "digest": done.key.digest.hex(),
        "shares": [done.share(seat).hex() for seat in seats(4)],
    }


def _deal(deal: Deal) -> str:
    return encode(deal).hex()


def _released(keepers: Keepers) -> dict[str, Any]:
    capsule = keepers.release.wrap(CONTENT_KEY, LABEL, random_of("vectors"))
    return {
        "capsule": capsule.hex(),
        "shares": {str(index): sealed.hex() for index, sealed in keepers.shares(capsule).items()},
        "context_of_share_1": share_context(capsule, LABEL, ACCESS, 1, 0).hex(),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n")
