"""`nnUNetv2_rmr_doctor`: say what is wrong with this installation, and what to type.

Only the standard library is imported at the top: the checks must also run where torch or nnU-Net can not be imported,
as that is one of the things they report.
"""

import argparse
import contextlib
import filecmp
import importlib
import importlib.util
import io
import os
import platform
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from itertools import filterfalse, starmap
from pathlib import Path
from typing import Literal, NamedTuple

from nnunetv2_rmr.ext_trainer import trainers_folder

DISTRIBUTION = "nnunetv2-rmr"
NNUNET_PATHS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
EXT_TRAINER = "nnUNet_extTrainer"
# A preprocessed dataset takes tens of GB, a trained fold about half a GB (two checkpoints).
LOW_DISK_GB, NO_DISK_GB = 20, 1

Status = Literal["ok", "warning", "FAIL"]


class Check(NamedTuple):
    """Result of one check. `fix` says what to type; it is never empty when `status` is FAIL."""

    name: str
    status: Status
    message: str
    fix: str = ""


def run_checks() -> Iterator[Check]:
    """Every check, one after the other, so that the results can be shown while the slow ones still run."""
    for check in (check_versions, check_dicom, check_paths, check_contents, check_processes):
        yield from guarded(check)
    yield from (imports := guarded(check_imports))
    if all(result.status == "ok" for result in imports):
        yield from [*guarded(check_trainers), *guarded(check_device)]


def guarded(check: Callable[[], Iterable[Check]]) -> list[Check]:
    """Runs a check without its chatter; whatever it raises becomes a failure of its own.

    SystemExit is caught too: nnU-Net imports every module of nnUNet_extTrainer, and a script lying there may leave.
    """
    done: list[Check] = []
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for result in check():
                done.append(result)
    except (Exception, SystemExit) as error:
        done.append(Check(check.__name__.removeprefix("check_"), "FAIL", _describe(error), _reinstall()))
    return done


def check_versions() -> Iterator[Check]:
    """Installed versions against what our package and nnU-Net declare (so no range is written here a second time).

    Raises PackageNotFoundError if our package was never installed, only imported.
    """
    needed = [*_requirements(DISTRIBUTION), *(_requirements("nnunetv2") if _version("nnunetv2") else [])]
    for requirement in filterfalse(_is_met, needed):
        wanted = f"{requirement.name}{requirement.specifier}"
        found = _version(requirement.name) or "not installed"
        yield Check(requirement.name, "FAIL", f"{found}, needed: {wanted}", _pip_install(wanted))
    versions = {f"{requirement.name.lower()} {_version(requirement.name)}" for requirement in filter(_is_met, needed)}
    yield Check("versions", "ok", ", ".join([f"python {platform.python_version()}", *sorted(versions)]))


def _requirements(distribution: str) -> list:
    """`packaging` requirements of an installed distribution, without its extras'."""
    from packaging.requirements import Requirement

    found = [Requirement(line) for line in metadata.requires(distribution) or []]
    return [r for r in found if r.marker is None or r.marker.evaluate({"extra": ""})]


def _is_met(requirement) -> bool:
    version = _version(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def check_dicom() -> Iterator[Check]:
    """The libraries that --series and --dicom need, and whether the program in one of them runs."""
    from nnunetv2_rmr.dicom.installed import LIBRARIES, absent_libraries

    if absent := absent_libraries():
        yield Check("DICOM", "ok", f"--series and --dicom would need {' and '.join(absent)}",
                    _pip_install(f"{DISTRIBUTION}[dicom]"))
        return
    program = importlib.import_module("dcm2niix").bin
    said = subprocess.run([program, "--version"], capture_output=True, text=True)
    if "dcm2nii" in said.stdout:
        yield Check("DICOM", "ok", ", ".join(f"{name} {_version(name)}" for name in LIBRARIES) + "; dcm2niix runs")
    else:
        yield Check("DICOM", "FAIL", f"{program} does not run: {said.stderr.strip()}",
                    _pip_install("dcm2niix", "--force-reinstall"))


def check_imports() -> Iterator[Check]:
    """An installed package can still fail to import: broken libraries, an interrupted upgrade, a shadowing folder."""
    for module in ("torch.nn", "nnunetv2.paths"):  # a folder left by an uninstall can be imported, but has no modules
        package = module.split(".")[0]
        try:
            importlib.import_module(module)
            yield Check(f"import {package}", "ok", str(sys.modules[package].__file__))
        except (Exception, SystemExit) as error:
            yield Check(f"import {package}", "FAIL", _describe(error), _pip_install(package, "--force-reinstall"))


def check_paths() -> Iterator[Check]:
    for variable in NNUNET_PATHS:
        folder = os.environ.get(variable, "").strip()
        problem: Status = "warning" if variable == "nnUNet_raw" else "FAIL"  # nnU-Net writes nothing there
        if not folder:
            wanted = f"$HOME/nnUNet/{variable}"
            yield Check(variable, "FAIL", "not set", f'mkdir -p "{wanted}" && {_export(variable, wanted)}'
                                                     "  (put the second part into your shell's start file)")
        elif not Path(folder).is_absolute():
            # "~" lands here too: the shell does not expand it inside quotes, nor does nnU-Net
            yield Check(variable, "FAIL", f"{folder} is not an absolute path: it means another folder elsewhere",
                        _export(variable, str(Path(folder).expanduser().resolve())))
        elif not Path(folder).is_dir():
            yield Check(variable, "FAIL", f"{folder} is not a folder", f"mkdir -p {shlex.quote(folder)}")
        elif not os.access(folder, os.W_OK):
            yield Check(variable, problem, f"{folder} can not be written to",
                        f"chmod u+rwx {shlex.quote(folder)}  (or let {variable} name a folder of yours)")
        else:
            free = shutil.disk_usage(folder).free / 1e9
            status = problem if free < NO_DISK_GB else "warning" if free < LOW_DISK_GB else "ok"
            yield Check(variable, status, f"{folder}, writable, {free:.0f} GB free",
                        "" if status == "ok" else f"free some space: du -sh {shlex.quote(folder)}/*")


def check_contents() -> Iterator[Check]:
    """Data sets that nnU-Net would take for something else than they are."""
    raw, preprocessed, _ = (Path(os.environ.get(variable) or os.devnull) for variable in NNUNET_PATHS)
    for file in sorted(raw.glob("Dataset*/dataset.json")):
        copied = preprocessed / file.parent.name / file.name  # by planning; its fingerprint and folds are kept, too
        if copied.is_file() and not filecmp.cmp(file, copied, shallow=False):
            yield Check(file.parent.name, "warning", "its dataset.json was changed after it was planned",
                        f"rm -r {shlex.quote(str(copied.parent))}  (then plan and preprocess again)")


def our_trainers(folder: Path) -> dict[str, type]:
    """Those of a folder for nnUNet_extTrainer, by name."""
    return {name: value for file in sorted(folder.glob("*.py")) for name, value in runpy.run_path(str(file)).items()
            if isinstance(value, type)}


def check_trainers() -> Iterator[Check]:
    """Whether nnU-Net's own search finds every trainer, as the class that worker processes will load."""
    folders = [folder for folder in os.environ.get(EXT_TRAINER, "").split(os.pathsep) if folder.strip()]
    ours = [folder for folder in folders if Path(folder, "nnunet_rmr_trainers.py").is_file()]
    # nnU-Net would throw away every module of ours that it imported from there
    whole = [folder for folder in folders if Path(folder, "nnunetv2_rmr").is_dir()]
    others = [folder for folder in folders if Path(folder).is_dir() and folder not in [*ours, *whole]]
    fix = _export(EXT_TRAINER, os.pathsep.join([*others, "$(nnUNetv2_rmr_trainers)"]))
    if not folders:
        yield Check(EXT_TRAINER, "FAIL", "not set: nnU-Net does not find our trainers", fix)
    elif whole:
        yield Check(EXT_TRAINER, "FAIL", f"{whole[0]} holds the whole package instead of the trainers only", fix)
    elif problems := list(filter(None, starmap(_search_problem, our_trainers(trainers_folder()).items()))):
        yield Check(EXT_TRAINER, "FAIL", problems[0], fix)
    else:
        yield Check(EXT_TRAINER, "ok", f"nnU-Net finds our trainers in {os.pathsep.join(folders)}")


def _search_problem(name: str, ours: type) -> str:
    """Why nnU-Net's search for trainers does not end at our class; '' if it does."""
    search = importlib.import_module("nnunetv2.utilities.find_objects").recursive_find_trainer_class_by_name
    try:
        found = search(name)
    except (Exception, SystemExit) as error:  # it imports all modules of all folders
        return f"nnU-Net's search for {name} fails: {_describe(error)}"
    return "" if found is ours else f"nnU-Net finds another {name} first, in {found.__module__}"


def check_device() -> Iterator[Check]:
    import torch

    with warnings.catch_warnings(record=True) as caught:  # torch says in a warning why CUDA does not start
        warnings.simplefilter("always")
        cuda = torch.cuda.is_available()
    if cuda:
        yield from _check_cuda(torch)
    elif torch.backends.mps.is_available():
        yield Check("device", "ok", "mps (Apple), shared memory; nnU-Net uses it only with: -device mps")
    elif (gpus := _nvidia_gpus()) and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1"):
        why = "".join(f": {str(warning.message).splitlines()[0]}" for warning in caught[:1])
        yield Check("device", "FAIL", f"torch (built for CUDA: {torch.version.cuda}) can not use {gpus}{why}",
                    "nvidia-smi  (shows the highest CUDA version of your driver: update it, or install a torch built "
                    "for that version, https://pytorch.org/get-started/locally)")
    else:
        yield Check("device", "warning", "cpu: training takes very long",
                    "add -device cpu to nnUNetv2_train and to the predict commands (nnU-Net's default is cuda); "
                    "docs/brats.md has a configuration that a CPU trains in minutes")


def _check_cuda(torch) -> Iterator[Check]:
    properties = torch.cuda.get_device_properties(0)
    message = f"cuda: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    try:
        # A GPU too old or too new for this torch is listed as available and fails at the first kernel.
        (torch.ones(8, device="cuda") + 1).cpu()
        yield Check("device", "ok", message)
    except Exception as error:
        yield Check("device", "FAIL", f"{message}, but it does not compute: {_describe(error)}",
                    "nvidia-smi shows whether another process holds the GPU; else install a torch that supports it: "
                    "https://pytorch.org/get-started/previous-versions")
    compiles = os.environ.get("nnUNet_compile", "t").lower() in ("true", "1", "t")  # as nnU-Net reads it
    if compiles and not (importlib.util.find_spec("triton") and any(map(shutil.which, ("cc", "gcc", "clang")))):
        yield Check("torch.compile", "warning", "nnU-Net will use it, but it fails without triton and a C compiler",
                    "export nnUNet_compile=f  (or: apt-get install gcc python3-dev; pip install triton)")


def _nvidia_gpus() -> str:
    """What the driver lists, '' without driver or GPU."""
    status, listed = subprocess.getstatusoutput("nvidia-smi --query-gpu=name --format=csv,noheader")
    return "" if status else ", ".join(listed.splitlines())


def check_processes() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for variable, default in (("nnUNet_n_proc_DA", min(12, os.cpu_count() or 1)), ("nnUNet_def_n_proc", 8)):
        count = os.environ.get(variable, str(default))
        message = f"{count} processes on {cores} core{'s' * (cores > 1)}"
        if count.isdecimal() and int(count) <= cores:
            yield Check(variable, "ok", message)
        else:
            yield Check(variable, "warning", message, f"{_export(variable, str(cores))}  # planning and preprocessing "
                                                      f"ignore it: give them -npfp {cores}, -np {cores}")


def _describe(error: BaseException) -> str:
    """One line; tracebacks tell a user nothing about what to type."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _pip_install(*what: str) -> str:
    """With this interpreter, as a bare `pip` is often the one of another environment."""
    return " ".join([shlex.quote(sys.executable), "-m pip install", *map(shlex.quote, what)])


def _reinstall() -> str:
    """The command for our own package, from the checkout if it is one."""
    root = Path(__file__).resolve().parents[2]
    return _pip_install("-e", str(root)) if (root / "pyproject.toml").is_file() else \
        _pip_install(DISTRIBUTION, "--force-reinstall")


def _export(variable: str, value: str) -> str:
    return f'export {variable}="{value}"'


def main() -> None:
    argparse.ArgumentParser(
        prog="nnUNetv2_rmr_doctor",
        description="Checks versions, nnU-Net's folders and what lies in them, whether nnU-Net finds our trainers, and "
                    "what this machine will use. Says for each problem what to type. Exit status 1 if a check fails.",
    ).parse_args()
    found = []
    try:
        for check in run_checks():
            found.append(check.status)
            advice = f"\n{'':8}-> {check.fix}" if check.fix else ""
            print(f"{check.status:<8}{check.name}: {check.message}{advice}", flush=True)
        failed, warned = found.count("FAIL"), found.count("warning")
        print(f"{len(found)} checks: {failed} failed, {warned} warning{'s' * (warned != 1)}", flush=True)
    except BrokenPipeError:  # `| head` has read enough; Python would write the rest at its end, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1 if "FAIL" in found else 0)
