"""`p2pledger completion`."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a completion script: eval "$(p2pledger completion bash)"."""
    from p2pledger.cli.main import root

    kind = get_completion_class(shell)
    assert kind is not None, f"click knows {shell}"
    click.echo(kind(root, {}, "p2pledger", "_P2PLEDGER_COMPLETE").source())
