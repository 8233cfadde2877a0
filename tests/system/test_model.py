"""What the model of the agreement promises, asked of TLC (docs/model.md); Java comes from Debian."""

import subprocess
import sys

import pytest

from tests.model.case import FOLDER

pytestmark = pytest.mark.system


@pytest.mark.timeout(1_200)
def test_the_small_models_hold_and_every_unsafe_variant_is_found() -> None:
    """P2 to P20: what `make model-short` asks, with the answers that are expected."""
    command = [sys.executable, "-m", "tests.model.run", "--short", "--workers", "2"]
    done = subprocess.run(command, cwd=FOLDER.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
