"""`p2pledger start`: run this member's node until it is told to stop."""

import gc
import os
import sys

import click

from p2pledger.cli.output import Session, with_session

GC_YOUNG = 20_000
"""New containers before the garbage collector looks for cycles: a block makes tens of thousands, and no cycle."""

SWITCH_S = 0.000_5
"""For how long a thread may keep the interpreter from another that has come back from libsodium or a disk; at the usual
5 ms, a worker's signature of 80 microseconds waits sixty times as long for a busy driver."""


@click.command()
@click.option(
    "--accept-resign-risk",
    is_flag=True,
    help="Sign although the journal was emptied or replaced. Read docs/operations.md first.",
)
@with_session
def start(session: Session, accept_resign_risk: bool) -> None:
    """Run this member's node. SIGTERM stops it cleanly; SIGUSR1 prints its tasks and queues."""
    import trio

    from p2pledger.node.home import Home
    from p2pledger.node.logs import configure_logs
    from p2pledger.node.node import opened, serve

    home = Home.load(session.home, os.environ)
    configure_logs(home.config.node.log_level, home.config.node.log_format)
    with opened(home, accept_resign_risk) as node:
        gc.set_threshold(GC_YOUNG, 20, 100)
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(SWITCH_S)
        trio.run(serve, node)
