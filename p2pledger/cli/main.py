"""The command line: one module for each noun, loaded only when it is called, and the one place where errors become
exit statuses.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from p2pledger.cli.output import FORMS, HOME, ORGANISATION_KEYS, Session
from p2pledger.primitives.errors import (
    Code,
    ConfigError,
    InvalidInput,
    P2PLedgerError,
    ProofError,
    Refused,
    Rejected,
    Unavailable,
    Unreachable,
)

OK = 0
FAILURE = 1
USAGE = 2
UNREACHABLE = 3
REFUSED = 4
UNPROVEN = 5
NOT_FOUND = 6
TRY_LATER = 75
BAD_CONFIG = 78
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Noun:
    """A word after `p2pledger`: where its command is and what it is for."""

    target: str
    help: str


NOUNS = {
    "demo": Noun("p2pledger.cli.demo:demo", "Run a four-member network here and watch it work."),
    "consortium": Noun("p2pledger.cli.consortium:consortium", "Make all homes of a consortium, for demonstrations."),
    "member": Noun("p2pledger.cli.member:member", "Make a member's home and card; stop and resume members."),
    "genesis": Noun("p2pledger.cli.genesis:genesis", "Assemble, sign, combine, show and install the genesis."),
    "start": Noun("p2pledger.cli.start:start", "Run this member's node."),
    "resync": Noun("p2pledger.cli.resync:resync", "Execute a stopped node's ledger afresh, and lift its halt."),
    "status": Noun("p2pledger.cli.status:status", "Show where a node and its consortium stand."),
    "wallet": Noun("p2pledger.cli.wallet:wallet", "Make, back up, restore, rotate and read a person's wallet."),
    "identity": Noun("p2pledger.cli.identity:identity", "Register people and say what they may act as."),
    "keys": Noun("p2pledger.cli.keys:keys", "Show, back up, restore and check the keys of a home."),
    "guardian": Noun("p2pledger.cli.guardian:guardian", "Name guardians, guard somebody, freeze a stolen key."),
    "recovery": Noun("p2pledger.cli.recovery:recovery", "Put a new wallet in a lost one's place, or veto that."),
    "tx": Noun("p2pledger.cli.tx:tx", "Submit transactions and follow their receipts."),
    "block": Noun("p2pledger.cli.block:block", "Show committed blocks."),
    "record": Noun("p2pledger.cli.record:record", "Seal, commit and open health records."),
    "vault": Noun("p2pledger.cli.vault:vault", "Serve, copy, audit and mend the vault of sealed records."),
    "consent": Noun("p2pledger.cli.consent:consent", "Grant, revoke and list consents."),
    "access": Noun("p2pledger.cli.access:access", "Ask for access to records."),
    "emergency": Noun("p2pledger.cli.emergency:emergency", "Summaries that open offline, and are logged after."),
    "audit": Noun("p2pledger.cli.audit:audit", "Who accessed what, for what purpose, and when."),
    "watch": Noun("p2pledger.cli.watch:watch", "Tell what happens to a patient's data as it happens."),
    "sharing": Noun("p2pledger.cli.sharing:sharing", "The joint key that records are sealed to, and its shares."),
    "verify": Noun("p2pledger.cli.verify:verify", "Check proofs offline, with nothing but the genesis."),
    "prune": Noun("p2pledger.cli.prune:prune", "Draft a pruning of old blocks, for most members to sign."),
    "snapshot": Noun("p2pledger.cli.snapshot:snapshot", "Hand a stopped node's stores to another, or take them in."),
    "erase": Noun("p2pledger.cli.erase:erase", "Ask for, decide, carry out and certify the erasure of records."),
    "backup": Noun("p2pledger.cli.backup:backup", "Make, list, check and restore sealed backups of the vault."),
    "compact": Noun("p2pledger.cli.compact:compact", "Give freed pages of a stopped node's stores back."),
    "sim": Noun("p2pledger.cli.sim:sim", "Run simulated consortia through faults and liars."),
    "version": Noun("p2pledger.cli.version:version", "Show the versions of this program."),
    "completion": Noun("p2pledger.cli.completion:completion", "Print a completion script for your shell."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and help, and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        noun = NOUNS.get(cmd_name)
        if noun is None:
            return None
        module, _, attribute = noun.target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        nouns = [CompletionItem(name, help=noun.help) for name, noun in NOUNS.items() if name.startswith(incomplete)]
        return [*nouns, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, noun.help) for name, noun in NOUNS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@HOME
@ORGANISATION_KEYS
@click.option("--output", "form", type=click.Choice(FORMS), default="table", help="Form of the data on stdout.")
@click.pass_context
def root(context: click.Context, home_flag: str | None, organisation_keys_flag: str | None, form: str) -> None:
    """A Byzantine-fault-tolerant ledger for healthcare consortia.

    Data goes to stdout, messages to stderr. Exit statuses: 0 ok, 1 failure, 2 usage or invalid input, 3 node
    unreachable, 4 refused by the ledger, 5 proof did not verify, 6 not found, 75 try later, 78 bad configuration.
    """
    context.obj = Session(home_flag, form, organisation_keys_flag)


def exit_status(error: BaseException) -> int:
    """The exit status that says what happened; the first matching row wins, so subclasses stand above."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.UsageError():
            return USAGE
        case KeyboardInterrupt() | click.Abort():
            return INTERRUPTED
        case Refused() | Rejected():
            return {Code.E_NOT_FOUND: NOT_FOUND, Code.E_BUSY: TRY_LATER}.get(error.code, REFUSED)
        case InvalidInput():
            return USAGE
        case ConfigError():
            return BAD_CONFIG
        case Unreachable():
            return UNREACHABLE
        case Unavailable():
            return TRY_LATER
        case ProofError():
            return UNPROVEN
        case _:
            return FAILURE


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and end the process with its exit status."""
    if not __debug__:
        click.echo("p2pledger: assertions guard agreement; run without python -O and PYTHONOPTIMIZE", err=True)
        sys.exit(BAD_CONFIG)
    try:
        status = root.main(args=arguments, prog_name="p2pledger", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output left. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE)
    except (click.ClickException, click.Abort, P2PLedgerError, KeyboardInterrupt, ModuleNotFoundError) as error:
        sys.exit(_report(error))
    except BaseExceptionGroup as group:
        known = _first_known(group)
        if known is None:
            raise
        sys.exit(_report(known))
    sys.exit(status if isinstance(status, int) else OK)


def _report(error: BaseException) -> int:
    """Say what is wrong on stderr, in one line where it is ours."""
    match error:
        case click.ClickException():
            error.show()
        case KeyboardInterrupt() | click.Abort():
            click.echo("interrupted", err=True)
        case Refused():
            click.echo(f"refused: {error}", err=True)
        case _:
            click.echo(f"error: {error}", err=True)
    return exit_status(error)


def _first_known(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The first error of ours inside a nursery's group, however deep."""
    for error in group.exceptions:
        found = _first_known(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, P2PLedgerError | KeyboardInterrupt):
            return found
    return None
