"""Data flows one way: what a folder may import."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import nnunetv2_rmr

PACKAGE = Path(nnunetv2_rmr.__file__).parent
# Each may import those before it.
ORDER = ("settings", "ext_trainer", "files", "dicom", "degradations", "networks", "fusion", "losses", "planning",
         "inference", "datasets", "evaluation", "training", "report", "published", "demo", "doctor", "cli")
SETTINGS_ONLY = ("networks", "losses")


def room(module: str) -> str:
    """Folder or file of the package's first level; "" for the package itself."""
    return [*module.split("."), ""][1]


def modules() -> dict[str, set[str]]:
    """Of every module of the package those that it imports, lazily or not."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        module = ".".join((PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        found[module] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                found[module] |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                found[module] |= {alias.name for alias in node.names}
    return {module: (others & found.keys()) - {module} for module, others in found.items()}


def imports() -> dict[str, set[str]]:
    """Of every module the other rooms that it imports."""
    return {module: {room(other) for other in others} - {"", room(module)} for module, others in modules().items()}


def test_every_room_has_its_place():
    rooms = {room(module) for module in imports()} - {"", "trainers"}
    assert rooms == set(ORDER)


def test_nothing_is_imported_against_the_flow():
    against = [f"{module} imports {other}" for module, others in imports().items() for other in others
               if room(module) in ORDER and ORDER.index(other) >= ORDER.index(room(module))]
    assert not against


def test_networks_and_losses_stand_alone():
    assert not [f"{module} imports {others}" for module, others in imports().items()
                if room(module) in SETTINGS_ONLY and others - {"settings"}]


def test_there_is_no_circle():
    TopologicalSorter(modules()).prepare()
