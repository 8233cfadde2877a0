"""The narrated demonstration: a real network of processes finalises real health transactions on one machine."""
