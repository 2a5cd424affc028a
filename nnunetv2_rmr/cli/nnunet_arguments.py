"""--help and mistyped arguments of nnU-Net's own commands, answered at once.

nnU-Net's entry points build their parsers inside of functions of modules that import torch, which takes seconds. Here
only those lines of the source are run that build the parser, so that a command of ours can check its arguments before
it imports anything. Whatever this can not read, nnU-Net's entry point decides as ever, only later.
"""

import __future__

import argparse
import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

PARSES = ("parse_args", "parse_known_args")
# how those of nnU-Net's RuntimeErrors begin that answer a wrong -d
WRONG_DATASET = ("Could not find a dataset", "More than one dataset name found")


def check_arguments(module: str, entry_point: str, ours: str = "") -> argparse.Namespace | None:
    """What sys.argv says, None if that can not be known; exits as nnU-Net's entry point would for --help or wrong
    arguments.

    module: file in the nnunetv2 package, such as "run/run_training.py"; ours: what we add to its help.
    """
    parser = nnunet_parser(module, entry_point)
    try:
        return None if parser is None else parser.parse_known_args()[0]
    finally:
        if ours and {"-h", "--help"} & set(sys.argv):
            print(ours)


@contextmanager
def wrong_dataset_in_one_line() -> Iterator[None]:
    """Exits with nnU-Net's message if -d names no data set, or several; other RuntimeErrors need their traceback."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(WRONG_DATASET):
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: error: {error}")


def nnunet_parser(module: str, entry_point: str) -> argparse.ArgumentParser | None:
    """The parser that nnU-Net's function `entry_point` builds, without importing its module; None if that fails."""
    try:
        package, = find_spec("nnunetv2").submodule_search_locations
        tree = ast.parse(Path(package, module).read_text(encoding="utf-8"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        imports = [node for node in tree.body if isinstance(node, ast.Import)
                   and all(alias.name.split(".")[0] in sys.stdlib_module_names for alias in node.names)]
        building = []
        for statement in functions[entry_point].body:
            if any(isinstance(node, ast.Attribute) and node.attr in PARSES for node in ast.walk(statement)):
                break
            if not (isinstance(statement, ast.Expr) and _calls_print(statement.value)):
                building.append(statement)
        named = {node.id for statement in building for node in ast.walk(statement) if isinstance(node, ast.Name)}
        helpers = [node for name, node in functions.items() if name in named]
        # annotations stay text: they may name what is not imported here
        code = compile(ast.Module([*imports, *helpers, *building], type_ignores=[]), module, "exec",
                       __future__.annotations.compiler_flag)
        namespace = {}
        exec(code, namespace)
        return namespace["parser"]
    except Exception:  # another version of nnU-Net, written in another way
        return None


def _calls_print(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
