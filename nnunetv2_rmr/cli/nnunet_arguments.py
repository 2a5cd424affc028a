"""--help and mistyped arguments of nnU-Net's own commands, answered at once.

nnU-Net's entry points build their parsers inside of functions of modules that import torch, which takes seconds. Here
only those lines of the source are run that build the parser, so that a command of ours can check its arguments before
it imports anything. Whatever this can not read, nnU-Net's entry point decides as ever, only later.
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

# how those of nnU-Net's RuntimeErrors begin that answer a wrong -d
WRONG_DATASET = ("Could not find a dataset", "More than one dataset name found")


def check_arguments(module: str, entry_point: str, ours: str = "") -> argparse.Namespace | None:
    """What sys.argv says, None if that can not be known; exits as nnU-Net's entry point would for --help or wrong
    arguments.

    module: file in the nnunetv2 package, such as "run/run_training.py"; ours: what we add to its help.
    """
    parser = _nnunet_parser(module, entry_point)
    try:
        return None if parser is None else parser.parse_known_args()[0]
    finally:
        if ours and {"-h", "--help"} & set(sys.argv):
            print(ours)


def _nnunet_parser(module: str, entry_point: str) -> argparse.ArgumentParser | None:
    """The parser that nnU-Net's function `entry_point` builds, without importing its module; None if that fails."""
    try:
        package, = find_spec("nnunetv2").submodule_search_locations
        source = ast.parse(Path(package, module).read_text(encoding="utf-8")).body
        functions = {node.name: ast.unparse(node) for node in source if isinstance(node, ast.FunctionDef)}
        statements = list(map(ast.unparse, next(f for f in source if getattr(f, "name", "") == entry_point).body))
        end = next(i for i, statement in enumerate(statements) if "parser.parse_" in statement)
        building = "\n".join(statement for statement in statements[:end] if not statement.startswith("print("))
        helpers = [function for name, function in functions.items() if f"{name}(" in building]
        namespace = {}
        # annotations stay text: they may name what is not imported here
        exec("\n".join(["from __future__ import annotations\nimport argparse, os", *helpers, building]), namespace)
        return namespace["parser"]
    except Exception:  # another version of nnU-Net, written in another way
        return None


@contextmanager
def wrong_dataset_in_one_line() -> Iterator[None]:
    """Exits with nnU-Net's message if -d names no data set, or several; other RuntimeErrors need their traceback."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(WRONG_DATASET):
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: error: {error}")
