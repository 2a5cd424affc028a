"""Data flows one way: what a folder may import."""

import ast
from pathlib import Path

import nnunetv2_rmr

PACKAGE = Path(nnunetv2_rmr.__file__).parent
# Each may import those before it.
ORDER = ("settings", "ext_trainer", "files", "degradations", "networks", "fusion", "losses", "planning", "inference",
         "datasets", "evaluation", "training", "report", "published", "demo", "doctor", "cli")
SETTINGS_ONLY = ("networks", "losses")


def room(module: str) -> str:
    """Folder or file of the package's first level; "" for the package itself."""
    return [*module.split("."), ""][1]


def imports() -> dict[str, set[str]]:
    """Of every file of the package, as a module's name, the rooms that it imports, lazily or not."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        module = ".".join((PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts))
        names = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                names.add(node.module or "")
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        found[module] = {room(name) for name in names if name.split(".")[0] == PACKAGE.name} - {"", room(module)}
    return found


def test_every_room_has_its_place():
    rooms = {room(module) for module in imports()} - {"__init__", "trainers"}
    assert rooms == set(ORDER)


def test_nothing_is_imported_against_the_flow():
    against = [f"{module} imports {other}" for module, others in imports().items() for other in others
               if room(module) in ORDER and ORDER.index(other) >= ORDER.index(room(module))]
    assert not against


def test_networks_and_losses_stand_alone():
    assert not [f"{module} imports {others}" for module, others in imports().items()
                if room(module) in SETTINGS_ONLY and others - {"settings"}]
