"""Writes agreement.json: run once when the format changes, `python -m tests.vectors.generate_agreement`.

The vectors fix the exact bytes of what is signed and hashed, so that another implementation can be held to them.
"""

import json
from pathlib import Path
from typing import Any

from p2pledger.chain.batch import batch_id, seal
from p2pledger.chain.receipt import effects_leaves, executed
from p2pledger.chain.transaction import parse, sign
from p2pledger.consensus.messages import statement
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import Height, Millis, Nonce
from p2pledger.primitives.merkle import root_of_hashes
from p2pledger.sim.application import Put
from tests.scenarios.stage import Stage

PATH = Path(__file__).with_name("agreement.json")


def vectors() -> dict[str, Any]:
    """Everything, as hexadecimal."""
    stage = Stage("a")
    founding = stage.founding
    sender, cosigner = stage.keys["b"], stage.keys["c"]
    data = sign(stage.chain, sender, Nonce(5), Millis(1_750_000_060_000), [Put(b"key", b"value")], [cosigner])
    transaction = parse(data)
    batch = seal(stage.chain, stage.keys["d"], 9, [data])
    block = stage.block()
    lock = stage.certificate("prepare", block)
    changes = [stage.view_change(who, 1, lock) for who in "acd"]
    receipt = executed(Height(1), 0, transaction.id, Code.OK, [b"event"])
    said = {
        "pre_prepare": stage.proposal(block),
        "prepare": stage.prepare("b", block),
        "commit": stage.commit("b", block),
        "view_change": changes[0],
        "new_view": stage.new_view(1, changes, (block,)),
    }
    return {
        "genesis": {"bytes": encode(founding.signed).hex(), "chain": stage.chain.hex()},
        "seats": {letter: {"seed": key.seed.hex(), "public": key.public.hex()} for letter, key in stage.keys.items()},
        "transaction": {"bytes": data.hex(), "body": transaction.envelope.body.hex(), "id": transaction.id.hex()},
        "batch": {"bytes": batch.hex(), "id": batch_id(batch).hex()},
        "block": {"bytes": encode(block).hex(), "hash": block.hash.hex()},
        "statements": {
            name: {
                "signed_bytes": statement(stage.chain, message).hex(),
                "signature": stage.signed(message).signature.hex(),
                "message": encode(message).hex(),
            }
            for name, message in said.items()
        },
        "certificates": {
            "prepare": encode(lock).hex(),
            "commit": encode(stage.certificate("commit", block)).hex(),
        },
        "receipt": {
            "bytes": encode(receipt).hex(),
            "effects_root": root_of_hashes(effects_leaves([receipt.receipt], {b"k": b"v", b"gone": None})).hex(),
        },
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=2) + "\n")
