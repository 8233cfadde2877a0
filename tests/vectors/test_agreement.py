"""The bytes on record are the bytes of today; whoever changes one changes the chain."""

import json

from tests.vectors.generate_agreement import PATH, vectors


def test_signed_and_hashed_bytes_have_not_changed() -> None:
    """Transactions, batches, blocks, statements, certificates, receipts, genesis and chain id."""
    assert json.loads(PATH.read_text()) == vectors()
