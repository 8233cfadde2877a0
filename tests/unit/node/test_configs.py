"""The files in configs/ say what the program does."""

import json
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from p2pledger.node.config import Config, load_config
from p2pledger.node.metrics import make_metrics
from p2pledger.node.vault import VaultMetrics
from p2pledger.vault.service import ServiceCounters

CONFIGS = Path(__file__).parents[3] / "configs"


def test_the_annotated_file_shows_every_setting_with_its_default():
    """Loading it is loading nothing; leaving a setting out of it fails here."""
    path = CONFIGS / "consortium" / "config.toml"
    assert load_config(path, {}) == Config()
    assert tomllib.loads(path.read_text()) == msgspec.to_builtins(Config())


@pytest.mark.parametrize("name", ["dashboards/node.json", "alerts/p2pledger.yml"])
def test_dashboards_and_alerts_use_metrics_that_exist(name, tmp_path):
    """A renamed metric must be renamed there too."""
    vault = VaultMetrics(ServiceCounters(), lambda: 0, tmp_path / "no audit")
    families = (*make_metrics().registry.collect(), *vault.collect())
    exported = {sample.name for family in families for sample in family.samples}
    exported |= {"p2pledger_node_info"}
    text = (CONFIGS / name).read_text()
    used = set(re.findall(r"\bp2pledger_\w+", text))
    assert used
    assert used - exported == set()
    if name.endswith(".json"):
        json.loads(text)


def test_every_alert_has_its_first_steps_in_the_operations_guide():
    """Who is paged finds what to do under the same name."""
    guide = (CONFIGS.parent / "docs" / "operations.md").read_text()
    named = {name for row in re.findall(r"^\| ([A-Z][\w, ]+) \|", guide, re.MULTILINE) for name in row.split(", ")}
    alerts = re.findall(r"alert: P2PLedger(\w+)", (CONFIGS / "alerts" / "p2pledger.yml").read_text())
    assert set(alerts) - named == set()


def test_panels_stand_beside_each_other():
    """Each has its own number and place, and a query."""
    panels = json.loads((CONFIGS / "dashboards" / "node.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len({str(panel["gridPos"]) for panel in panels}) == len(panels)
    assert all(target["expr"] for panel in panels for target in panel["targets"])
