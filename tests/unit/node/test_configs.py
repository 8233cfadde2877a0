"""The files in configs/ say what the program does."""

import json
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from p2pledger.node.config import Config, load_config
from p2pledger.node.metrics import make_metrics

CONFIGS = Path(__file__).parents[3] / "configs"


def test_the_annotated_file_shows_every_setting_with_its_default():
    """Loading it is loading nothing; leaving a setting out of it fails here."""
    path = CONFIGS / "consortium" / "config.toml"
    assert load_config(path, {}) == Config()
    assert tomllib.loads(path.read_text()) == msgspec.to_builtins(Config())


@pytest.mark.parametrize("name", ["dashboards/node.json", "alerts/p2pledger.yml"])
def test_dashboards_and_alerts_use_metrics_that_exist(name):
    """A renamed metric must be renamed there too."""
    exported = {sample.name for family in make_metrics().registry.collect() for sample in family.samples}
    exported |= {"p2pledger_node_info"}
    text = (CONFIGS / name).read_text()
    used = set(re.findall(r"\bp2pledger_\w+", text))
    assert used
    assert used - exported == set()
    if name.endswith(".json"):
        json.loads(text)
