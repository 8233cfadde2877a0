"""What `audit export` writes beside the proofs: names from the directory, and what cards, slips and the vault open."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from p2pledger.cli.connect import Connection
from p2pledger.primitives.errors import Code, InvalidInput, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from p2pledger.client.accounting import Suspension
    from p2pledger.client.disclosures import Named
    from p2pledger.client.ledger import LedgerClient
    from p2pledger.client.records import Manifest
    from p2pledger.client.verify import VerifiedLog


@dataclass(frozen=True, slots=True)
class Papers:
    """What is at hand about one patient."""

    connection: Connection
    pid: bytes
    cards: tuple[Path, ...]
    slips: tuple[Path, ...]

    async def proofs(self, ledger: "LedgerClient") -> "tuple[bytes, VerifiedLog]":
        """(the file that verifies without anybody, what it proves); raises ProofError."""
        from p2pledger.client.export import verify_export

        data = await ledger.export_log(self.pid)
        return data, verify_export(data, ledger.founding.chain)

    async def rows(self, ledger: "LedgerClient") -> "tuple[VerifiedLog, list[Named]]":
        """The log, verified, with everything that can be said about its lines. Raises InvalidInput for bad papers."""
        from p2pledger.cli.consent import read_card
        from p2pledger.client.disclosures import Openings, Slip, named
        from p2pledger.node.home import read_text

        openings = Openings.of(
            [read_card(path) for path in self.cards],
            self._manifests(),
            [Slip.load(read_text(path)) for path in self.slips],
        )
        log = await ledger.log(self.pid)
        consents = await ledger.consents(self.pid)
        names = {identifier: name for identifier, (name, _) in (await ledger.organisations()).items()}
        return log, named(log.lines, names, await self._custodian(ledger), openings, consents, log.released)

    async def _custodian(self, ledger: "LedgerClient") -> bytes:
        """The custodian whose pid it is: the wallet's --at, or for an organisation what the state proves.

        Raises Rejected(E_NOT_FOUND) where no checkpoint knows the patient.
        """
        from p2pledger.health import keys
        from p2pledger.health.directory import Identity
        from p2pledger.primitives import limits
        from p2pledger.primitives.codec import decode

        if self.connection.wallet_file is not None:
            return self.connection.persona().organisation
        height, value = await ledger.state(keys.identity(self.pid))
        if value is None:
            raise Rejected(Code.E_NOT_FOUND, f"no patient {self.pid.hex()} at checkpoint {height}")
        return decode(Identity, value, limits.STATE_VALUE_BYTES_MAX).organisation

    def _manifests(self) -> "Iterator[Manifest]":
        """Those of the patient in the home's vault, where an organisation asks."""
        from p2pledger.cli.record import vault_of

        if self.connection.wallet_file is None:
            vault = vault_of(self.connection, self.connection.organisation())
            for batch in vault.batches():
                manifest = vault.manifest(batch)
                if manifest.pid == self.pid:
                    yield manifest

    def written(
        self,
        form: str,
        log: "VerifiedLog",
        rows: "list[Named]",
        since_ms: int | None,
        addresses: Path | None,
        suspensions: tuple[Path, ...],
        font: Path | None,
    ) -> bytes:
        """The file of this form; raises InvalidInput."""
        from p2pledger.client.balp import audit_bundle
        from p2pledger.client.sheet import to_csv

        if form == "csv":
            return to_csv(rows)
        if form == "fhir":
            return audit_bundle(rows, self.connection.founding().chain)
        return self._accounting(form, log, rows, since_ms, addresses, suspensions, font)

    def _accounting(
        self,
        form: str,
        log: "VerifiedLog",
        rows: "list[Named]",
        since_ms: int | None,
        addresses: Path | None,
        suspensions: tuple[Path, ...],
        font: Path | None,
    ) -> bytes:
        from p2pledger.cli.clock import now_ms
        from p2pledger.client.accounting import Proven, account
        from p2pledger.client.report import to_html, to_pdf

        custodian = rows[0].custodian if rows else "the custodian"
        proven = Proven(log.pid, custodian, self.connection.founding().chain, log.height, log.proven_ms, rows)
        found = account(
            proven,
            now_ms(),
            from_ms=since_ms,
            addresses=None if addresses is None else _addresses(addresses),
            suspensions=[_suspension(path) for path in suspensions],
        )
        return to_html(found) if form == "html" else to_pdf(found, font)


def _addresses(path: Path) -> dict[str, str]:
    from p2pledger.node.home import read_text

    try:
        parts = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is no JSON: {error}") from error
    if not isinstance(parts, dict) or not all(isinstance(address, str) for address in parts.values()):
        raise InvalidInput(f"{path} is no object of names and addresses")
    return parts


def _suspension(path: Path) -> "Suspension":
    from p2pledger.client.accounting import Suspension
    from p2pledger.node.home import read_text

    return Suspension.load(read_text(path))
