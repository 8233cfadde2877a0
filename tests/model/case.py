"""One question for the model checker: a module, its constants, and what must come of it.

Each is a TLC configuration in `cfg/`, whose first lines say the rest:

    \\* module: Layered
    \\* expect: safe                  or the property that must be violated
    \\* scope: 3 views, 3 heights
    \\* rules: P13                    of docs/protocol.md, where it is about some
    \\* short: yes                    where `make model-short` asks it too
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SAFE = "safe"


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    module: str
    expect: str
    """`safe`, or the property that TLC must find violated."""
    scope: str
    rules: tuple[str, ...]
    is_short: bool
    constants: dict[str, str]

    @property
    def path(self) -> Path:
        return FOLDER / "cfg" / f"{self.name}.cfg"


def load(path: Path) -> Case:
    """The case of a configuration; raises ValueError where its head lacks something."""
    lines = path.read_text().splitlines()
    head = dict(line[3:].split(": ", 1) for line in lines if line.startswith("\\* "))
    constants = dict(line.removeprefix("CONSTANTS ").split(" = ", 1) for line in lines if line.startswith("CONSTANTS "))
    try:
        module, expect, scope = head["module"], head["expect"], head["scope"]
    except KeyError as error:
        raise ValueError(f"{path.name} does not say its {error}") from error
    rules = tuple(head.get("rules", "").split())
    return Case(path.stem, module, expect, scope, rules, head.get("short") == "yes", constants)


def load_all() -> list[Case]:
    """All, by name."""
    return [load(path) for path in sorted((FOLDER / "cfg").glob("*.cfg"))]
