"""`p2pledger demo`: the main job, shown with real processes."""

from pathlib import Path

import click


@click.command()
@click.option("--keep", is_flag=True, help="Leave the network running and print how to talk to it.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where to put everything. [default: a temporary folder]"
)
def demo(keep: bool, folder: Path | None) -> None:
    """Run a four-member network here and watch it work.

    For demonstrations only: this one machine sees all keys.
    """
    import trio
    from rich.console import Console

    from p2pledger.demo.story import tell

    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # for a file: lines long enough for whole sentences
    # Only at checkpoints: in the midst of starting a process, Ctrl-C would leave it behind, unknown.
    trio.run(tell, console, folder, keep, restrict_keyboard_interrupt_to_checkpoints=True)
