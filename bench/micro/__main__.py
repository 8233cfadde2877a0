"""Chooses the benchmark; `minimal`, `ten` and `health` are those of blocks."""

import sys

from bench.micro import blocks, port, release, shares

BENCHMARKS = {"port": port.main, "shares": shares.main, "release": release.main}


def main() -> None:
    """By the first argument; what follows is the benchmark's own."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = BENCHMARKS.get(name)
    if chosen is not None:
        chosen(sys.argv[2:])
    else:
        blocks.main(sys.argv[1:])


if __name__ == "__main__":
    main()
