"""Ids, errors, limits, encoding, hashing and signatures: what every other part is made of."""
