"""F-13: what 45 CFR 164.312 demands has a test for each item; this names them, and finds out when one is renamed.

The rule binds the organisation that runs a node: devices, people and procedures are its own. Automatic logoff,
164.312(a)(2)(iii), is addressable: a wallet asks for its passphrase with each command, so no session stays open.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SAFEGUARDS = {
    "164.312(a)(1) access control": {
        "unit/health/test_release_attacks.py": ("test_shares_without_a_right_to_them",),
        "unit/health/test_release.py": ("test_the_doctor_opens_exactly_the_seven_allergies",),
    },
    "164.312(a)(2)(i) unique user identification": {
        "unit/health/test_directory.py": ("test_an_identity_enters_with_its_own_key_and_its_organisation",),
    },
    "164.312(a)(2)(ii) emergency access": {
        "unit/health/test_break_glass.py": ("test_an_emergency_access_raises_an_alert",),
        "unit/health/test_emergency.py": ("test_an_opening_becomes_a_line_an_alert_and_a_review",),
    },
    "164.312(a)(2)(iii) automatic logoff": {
        "unit/cli/test_wallet.py": ("test_a_sealed_wallet_asks_for_its_passphrase",),
    },
    "164.312(a)(2)(iv) encryption": {
        "unit/client/test_sealing.py": ("test_what_is_encrypted_opens_with_all_of_it_alone",),
        "node/test_privacy.py": ("test_no_string_of_any_record_leaves_the_vault_in_the_clear",),
    },
    "164.312(b) audit controls": {
        "unit/node/test_server.py": ("test_an_entry_that_was_deleted_or_edited_on_a_node_s_disk_is_found_out",),
        "unit/health/test_release_receipts.py": ("test_what_was_written_down_and_not_reported_is_owed",),
        "unit/client/test_releases.py": ("test_the_patient_sees_what_was_released_and_what_was_not",),
    },
    "164.312(c)(1) integrity": {
        "unit/vault/test_directory_store.py": ("test_a_changed_byte_is_found",),
        "unit/health/test_integrity.py": ("test_reader_patient_and_members_can_tell",),
    },
    "164.312(d) person or entity authentication": {
        "unit/health/test_directory.py": ("test_signatures_bind_chain_nonce_and_every_byte",),
        "network/test_tls.py": ("test_one_member_does_not_pass_for_another",),
    },
    "164.312(e)(1) transmission security": {
        "network/test_tls.py": ("test_an_outsider_is_refused_by_the_trust_store", "test_an_older_tls_is_not_spoken"),
    },
}


@pytest.mark.parametrize("item", SAFEGUARDS)
def test_each_item_has_a_test(item: str) -> None:
    """F-13: the tests that hold it exist under these names."""
    for name, tests in SAFEGUARDS[item].items():
        module = ast.parse((ROOT / name).read_text())
        found = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert set(tests) <= found, f"{item}: {name} has no {set(tests) - found}"
