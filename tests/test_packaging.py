"""What a user gets by installing: shims nnU-Net finds, classes workers can load, commands that answer at once."""

import ast
import importlib
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tiny

from nnunetv2_rmr.cli.doctor import our_trainers
from nnunetv2_rmr.cli.nnunet_arguments import check_arguments
from nnunetv2_rmr.ext_trainer import add_to_ext_trainer, trainers_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = tiny.ROOT
SHIMS = sorted((ROOT / "trainers").glob("*.py"))
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


def python(code: str, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    """Runs code in a fresh interpreter, without nnU-Net's variables but those given.

    Python looks into the current folder first: it must be the one the package is meant to come from.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")} | env
    return subprocess.run([sys.executable, "-c", code, *arguments], env=clean, cwd=env.get("PYTHONPATH", ROOT),
                          capture_output=True, text=True, timeout=300)


# ------------------------------------------------------------------------------------------------------------- shims

@pytest.mark.parametrize("shim", SHIMS, ids=lambda path: path.stem)
def test_a_shim_only_imports_from_the_package(shim):
    """A class defined in a folder of nnUNet_extTrainer can not be pickled."""
    imports = ast.parse(shim.read_text(encoding="utf-8")).body
    assert imports
    for node in imports:
        assert isinstance(node, ast.ImportFrom), f"line {node.lineno} is no import from a package"
        assert node.level == 0
        assert node.module.split(".")[0] == "nnunetv2_rmr"


def test_every_trainer_of_the_package_has_a_shim():
    defined = {node.name for file in (ROOT / "nnunetv2_rmr").rglob("*.py")
               for node in ast.parse(file.read_text(encoding="utf-8")).body
               if isinstance(node, ast.ClassDef) and node.name.startswith("nnUNetTrainer")}
    assert defined == set(our_trainers(ROOT / "trainers"))


# --------------------------------------------------------------------------------------------- checkout and wheel

@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
                    "--wheel-dir", folder, ROOT], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session", params=["checkout", "wheel"])
def installed(request, tmp_path_factory) -> dict[str, str]:
    """The environment in which the package is imported from a checkout, or from an installed wheel."""
    if request.param == "checkout":
        return {"PYTHONPATH": str(ROOT)}
    target = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target,
                    request.getfixturevalue("wheel")], check=True)
    return {"PYTHONPATH": str(target)}


def printed_folder(installed: dict[str, str]) -> Path:
    run = python("import sys; from nnunetv2_rmr.cli.trainers import main; sys.argv[1:] = []; main()", **installed)
    assert (run.returncode, run.stderr) == (0, "")
    return Path(run.stdout.removesuffix("\n"))


def test_the_wheel_holds_every_module_script_and_style_and_nothing_else(wheel):
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "nnunetv2_rmr").rglob("*.*")
             if path.is_file() and "__pycache__" not in path.parts}
    shims = {f"nnunetv2_rmr/trainers/{shim.name}" for shim in SHIMS}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == files | shims


@pytest.mark.slow
def test_sdist_and_wheel_pass_the_index_and_the_sdist_makes_the_same_wheel(wheel, tmp_path):
    pytest.importorskip("build")
    pytest.importorskip("twine")
    # without isolation: nothing is downloaded. First the sdist, then the wheel from what is in it
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, ROOT], check=True)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".gz", ".whl"]
    checked = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *tmp_path.iterdir()],
                             capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    made, direct = ({name: archive.read(name) for name in archive.namelist()}
                    for archive in map(zipfile.ZipFile, (*tmp_path.glob("*.whl"), wheel)))
    assert made == direct


@pytest.mark.slow
def test_a_fresh_environment_predicts_the_demo_from_the_wheel(wheel, tmp_path):
    """Its own environment, but for the libraries, which it finds where this one has them."""
    venv = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    # lines of a .pth come after what is installed, and editable installs of these folders are not followed
    (site / "libraries.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    subprocess.run([sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "install", "--quiet",
                    "--no-index", "--no-deps", wheel], check=True)
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("nnUNet_", "PYTHON"))}
    run = subprocess.run([venv / "bin" / "nnUNetv2_rmr_predict", "--demo"], env=bare, cwd=tmp_path,
                         capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    assert f"Using trainer 'nnUNetTrainerRMR' from: {site / 'nnunetv2_rmr' / 'trainers'}" in run.stdout
    assert "Dice of the lesions: 0.8" in run.stdout
    for file in ("phantom_012.nii.gz", "fused/phantom_012.nii.gz", "view.html"):
        assert (tmp_path / "demo_prediction" / file).is_file()


def test_the_trainers_command_prints_the_folder_with_the_shims(installed):
    folder = printed_folder(installed)
    assert folder.is_relative_to(installed["PYTHONPATH"])  # not those of another installation
    assert sorted(shim.name for shim in folder.glob("*.py")) == [shim.name for shim in SHIMS]
    assert all((folder / shim.name).read_bytes() == shim.read_bytes() for shim in SHIMS)


def test_nnunet_finds_every_trainer_and_workers_can_load_it(installed):
    names = sorted(our_trainers(ROOT / "trainers"))
    code = """
import pickle, sys
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
classes = [recursive_find_trainer_class_by_name(name) for name in sys.argv[1:]]
assert all(pickle.loads(pickle.dumps(found)) is found for found in classes)
import nnunetv2_rmr
print(nnunetv2_rmr.__file__)
print(pickle.dumps(classes).hex())
"""
    run = python(code, *names, nnUNet_extTrainer=str(printed_folder(installed)), **installed)
    assert run.returncode == 0, run.stderr
    imported_from, pickled = run.stdout.splitlines()[-2:]
    assert Path(imported_from).is_relative_to(installed["PYTHONPATH"])
    # this process did not search for them: like a worker that nnU-Net spawns
    classes = pickle.loads(bytes.fromhex(pickled))
    assert [found.__name__ for found in classes] == names
    assert all(found.__module__.startswith("nnunetv2_rmr.") for found in classes)


# -------------------------------------------------------------------------------------------------- nnUNet_extTrainer

@pytest.mark.parametrize("before", [None, "", "/some/folder", os.pathsep.join(["/some/folder", "/another one"])])
def test_our_folder_is_added_once_behind_the_folders_of_others(monkeypatch, before):
    if before is None:
        monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    else:
        monkeypatch.setenv("nnUNet_extTrainer", before)
    add_to_ext_trainer()
    add_to_ext_trainer()
    others = before.split(os.pathsep) if before else []
    assert os.environ["nnUNet_extTrainer"].split(os.pathsep) == [*others, str(trainers_folder())]


# ---------------------------------------------------------------------------------------------------------- commands

@pytest.mark.parametrize("script", SCRIPTS)
def test_a_command_answers_help_without_importing_torch(script):
    """Nobody waits ten seconds for --help; a typing error in an option must not take that long either."""
    module, function = SCRIPTS[script].split(":")
    code = f"""
import importlib, sys
main = getattr(importlib.import_module({module!r}), {function!r})
sys.argv = [{script!r}, "--help"]
try:
    main()
except SystemExit as left:
    print("torch was imported:", "torch" in sys.modules)
    sys.exit(left.code)
sys.exit("--help did not end the command")
"""
    run = python(code)
    assert run.returncode == 0, run.stderr
    assert "usage:" in run.stdout
    assert run.stdout.endswith("torch was imported: False\n")


@pytest.mark.parametrize(("module", "entry_point"), [
    ("nnunetv2.inference.predict_from_raw_data", "predict_entry_point"),
    ("nnunetv2.inference.predict_from_raw_data", "predict_entry_point_modelfolder"),
    ("nnunetv2.experiment_planning.plan_and_preprocess_entrypoints", "plan_experiment_entry"),
    ("nnunetv2.experiment_planning.plan_and_preprocess_entrypoints", "plan_and_preprocess_entry"),
    ("nnunetv2.run.run_training", "run_training_entry"),
])
def test_nnunets_arguments_are_checked_without_importing_it(module, entry_point, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["nnunet", "--help"])
    with pytest.raises(SystemExit):
        getattr(importlib.import_module(module), entry_point)()
    nnunets_own = capsys.readouterr().out
    file = "/".join(module.split(".")[1:]) + ".py"
    with pytest.raises(SystemExit) as left:
        check_arguments(file, entry_point)
    assert left.value.code == 0
    ours = capsys.readouterr().out
    assert ours.startswith("usage: nnunet") and nnunets_own.endswith(ours)
    monkeypatch.setattr(sys, "argv", ["nnunet", "-d", "no number"])
    with pytest.raises(SystemExit) as left:
        check_arguments(file, entry_point)
    assert left.value.code == 2


def test_unknown_versions_of_nnunet_are_left_to_nnunet():
    check_arguments("run/run_training.py", "no_such_function")
    check_arguments("no_such_file.py", "main")
