"""The nouns of the chain: transactions, batches, blocks, validators, receipts and the genesis."""
