"""Keys that open only when t of n validators help: pure cryptography, no clock, no disk, no randomness of its own."""
