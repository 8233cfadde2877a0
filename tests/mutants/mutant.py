"""A mutant: a small patch that breaks a rule, with the tests and the seeds that must notice it.

A patch is a unified diff below a few comment lines:

    # rules: P13
    # stands for: heights below the tip are prepared again
    # scenario: tests/scenarios/test_view_change.py::test_no_height_below_the_tip_is_prepared_again
    # seeds: core nodes=4 0:200

`seeds` is there when random worlds or inputs must find it too, within that budget: SIMULATORS says in which. Otherwise
`without seeds` says why not. Patches are applied by content, not by line number, so that a change elsewhere in the file
does not break them; `git apply` takes them as well.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent
SIMULATORS = {
    "core": "p2pledger.sim.core",
    "world": "p2pledger.sim.campaign",
    "doors": "tests.seeded.doors",
    "counts": "tests.seeded.counts",
    "blocks": "tests.seeded.blocks",
    "stores": "tests.seeded.stores",
    "solo": "tests.seeded.solo",
    "duties": "tests.seeded.duties",
    "releases": "tests.seeded.releases",
    "keys": "p2pledger.sim.keys.campaign",
}
"""What runs by seed, and the module whose `run_seed(seed, nodes)` does it."""
LINES_MAX = 5
"""A mutant changes so few lines: the rule is what is missing, not the code around it."""


class PatchError(Exception):
    """A patch that is not well formed, or does not fit the present tree."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines that stand together in one file, before and after."""

    file: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    removed: int
    added: int


@dataclass(frozen=True, slots=True)
class Seeds:
    """Worlds of so many nodes, within which simulation must find the mutant."""

    simulator: str
    """One of SIMULATORS."""
    nodes: int
    first: int
    beyond: int


@dataclass(frozen=True, slots=True)
class Mutant:
    """One defect."""

    name: str
    rules: tuple[str, ...]
    stands_for: str
    tests: tuple[str, ...]
    """Node ids; each must fail."""
    seeds: Seeds | None
    without_seeds: str
    """Why no seeds are asked to find it; empty where some are."""
    hunks: tuple[Hunk, ...]

    @property
    def lines(self) -> int:
        """How many lines it changes: a replaced line counts once."""
        return sum(max(hunk.removed, hunk.added) for hunk in self.hunks)

    def patched(self, root: Path = ROOT) -> dict[str, str]:
        """The text of each file that it changes; raises PatchError where a hunk does not stand exactly once."""
        texts: dict[str, str] = {}
        for hunk in self.hunks:
            text = texts.get(hunk.file) or (root / hunk.file).read_text()
            before, after = "".join(hunk.before), "".join(hunk.after)
            found = ("\n" + text).count("\n" + before)
            if found != 1:
                raise PatchError(f"{self.name}: a hunk stands {found} times in {hunk.file}; regenerate the patch")
            texts[hunk.file] = ("\n" + text).replace("\n" + before, "\n" + after, 1)[1:]
        return texts

    def plant(self, folder: Path) -> None:
        """The tree as it would be with this defect; what it does not touch is linked, not copied."""
        texts = self.patched()
        (folder / "p2pledger").mkdir()
        for name in ("tests", "docs", "pyproject.toml"):
            (folder / name).symlink_to(ROOT / name)
        for real in (ROOT / "p2pledger").iterdir():
            planted = folder / "p2pledger" / real.name
            if any(Path(file).parts[1] == real.name for file in texts):
                (shutil.copytree if real.is_dir() else shutil.copy2)(real, planted)
            else:
                planted.symlink_to(real)
        for file, text in texts.items():
            (folder / file).write_text(text)


def load(path: Path) -> Mutant:
    """The mutant of a patch file; raises PatchError."""
    lines = path.read_text().splitlines(keepends=True)
    head: dict[str, list[str]] = {}
    for line in lines:
        if not line.startswith("# "):
            break
        key, _, value = line[2:].strip().partition(": ")
        head.setdefault(key, []).append(value)
    try:
        (rules,), (stands_for,), tests = head["rules"], head["stands for"], head["scenario"]
        seeds = [_seeds(value) for value in head.get("seeds", [])]
        without = head.get("without seeds", [""])[0]
    except (KeyError, ValueError) as error:
        raise PatchError(f"{path.name}: its head lacks or repeats something: {error}") from error
    return Mutant(
        path.stem,
        tuple(rules.split(", ")),
        stands_for,
        tuple(tests),
        seeds[0] if seeds else None,
        without,
        tuple(_hunks(path.name, lines)),
    )


def load_all(folder: Path = FOLDER) -> list[Mutant]:
    """All of a folder, by name."""
    return [load(path) for path in sorted(folder.glob("*.patch"), key=lambda path: path.stem)]


def _seeds(value: str) -> Seeds:
    simulator, nodes, numbers = value.split()
    first, beyond = numbers.split(":")
    if simulator not in SIMULATORS:
        raise ValueError(f"there is no simulator {simulator}")
    return Seeds(simulator, int(nodes.removeprefix("nodes=")), int(first), int(beyond))


def _hunks(name: str, lines: list[str]) -> Iterator[Hunk]:
    file = ""
    body: list[str] = []
    for line in [*lines, "@@"]:
        if line.startswith(("@@", "--- ")) and body:
            yield _hunk(file, body)
            body = []
        if line.startswith("+++ b/"):
            file = line.removeprefix("+++ b/").split("\t")[0].strip()
        elif file and line[0] in " +-" and not line.startswith("--- "):
            body.append(line)
    if not file:
        raise PatchError(f"{name} changes no file")


def _hunk(file: str, body: list[str]) -> Hunk:
    return Hunk(
        file,
        tuple(line[1:] for line in body if line[0] in " -"),
        tuple(line[1:] for line in body if line[0] in " +"),
        sum(line[0] == "-" for line in body),
        sum(line[0] == "+" for line in body),
    )
