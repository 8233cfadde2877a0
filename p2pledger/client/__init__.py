"""The library that other programs import: keys, sealed records, a node's client port, exports and their proofs."""
