"""Checks of the installation: what is wrong on this machine, and the command that repairs it.

Only the standard library is imported at the top: the checks must also run where torch or nnU-Net can not be imported,
as that is one of the things they report.
"""

import ast
import contextlib
import importlib
import importlib.util
import io
import os
import pickle
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

from nnunetv2_rmr.ext_trainer import trainers_folder

DISTRIBUTION = "nnunetv2-rmr"
NNUNET_PATHS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
EXT_TRAINER = "nnUNet_extTrainer"
PROCESS_COUNTS = ("nnUNet_n_proc_DA", "nnUNet_def_n_proc")
# Versions shown one by one; the other requirements share one line.
NAMED_REQUIREMENTS = ("nnunetv2", "torch", "batchgeneratorsv2", "acvl-utils", "dynamic-network-architectures",
                      "simpleitk")
# A preprocessed dataset takes tens of GB, a trained fold about half a GB (two checkpoints).
LOW_DISK_GB, NO_DISK_GB = 20, 1
# Every worker of nnU-Net holds pipes, semaphores and memory maps of cases; 256 (the default of macOS) is too few.
MIN_OPEN_FILES = 1024

Status = Literal["ok", "warning", "FAIL"]


@dataclass(frozen=True)
class Check:
    """Result of one check. `fix` says what to type; it is never missing when `status` is FAIL."""

    name: str
    status: Status
    message: str
    fix: str | None = None

    def __post_init__(self) -> None:
        if self.status == "FAIL" and not self.fix:
            raise ValueError(f"check {self.name!r} fails without saying what to do")


def run_checks() -> Iterator[Check]:
    """Every check, one after the other, so that the results can be shown while the slow ones still run."""
    checks: list[tuple[str, Callable[[], Iterable[Check]]]] = [
        ("python", check_python),
        ("versions", check_versions),
        ("imports", check_imports),
        ("nnU-Net's paths", check_paths),
        (EXT_TRAINER, check_ext_trainer),
        ("trainers", check_trainers),
        ("device", check_device),
        ("torch.compile", check_compile),
        ("processes", check_processes),
        ("open files", check_open_files),
    ]
    for name, check in checks:
        yield from _guarded(name, check)


def _guarded(name: str, check: Callable[[], Iterable[Check]]) -> list[Check]:
    """Runs a check without its chatter; whatever it raises becomes a failure of its own.

    SystemExit is caught too: nnU-Net imports every module of nnUNet_extTrainer, and a script lying there may leave.
    """
    done: list[Check] = []
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for result in check():
                done.append(result)
    except (Exception, SystemExit) as error:
        done.append(Check(name, "FAIL", f"the check itself broke: {_describe(error)}",
                          f"report this line to {DISTRIBUTION}, with what this prints: {_python()} -m pip list"))
    return done


# ---------------------------------------------------------------------------------------------- versions and imports

def check_python() -> Iterator[Check]:
    version = platform.python_version()
    where = f"{version} ({sys.executable})"
    try:
        wanted = metadata.metadata(DISTRIBUTION).get("Requires-Python")
        from packaging.specifiers import SpecifierSet
    except (metadata.PackageNotFoundError, ImportError):
        wanted = None
    if wanted and not SpecifierSet(wanted).contains(version, prereleases=True):
        yield Check("python", "FAIL", f"{where}, needed: {wanted}",
                    "make an environment with a newer Python, e.g. conda create -n nnunet python=3.12")
    else:
        yield Check("python", "ok", where)


def check_versions() -> Iterator[Check]:
    """Installed versions against what our package and nnU-Net declare (so no range is written here a second time)."""
    try:
        needed, optional = _requirements()
    except metadata.PackageNotFoundError:
        yield Check(DISTRIBUTION, "FAIL", "imported without being installed, so nothing says which versions it needs",
                    _reinstall())
        return
    except ImportError:
        yield Check("versions", "FAIL", "can not be compared, `packaging` is missing", _pip_install("packaging"))
        return

    others = []
    for name in [*NAMED_REQUIREMENTS, *sorted(set(needed) - set(NAMED_REQUIREMENTS))]:
        if name not in needed:  # no longer required by anyone
            continue
        installed = _installed_version(name)
        wanted = f"{name}{needed[name]}"
        if installed is None:
            yield Check(name, "FAIL", f"not installed, needed: {wanted}", _pip_install(wanted))
        elif not needed[name].contains(installed, prereleases=True):
            yield Check(name, "FAIL", f"{installed}, needed: {wanted}", _pip_install(wanted))
        elif name in NAMED_REQUIREMENTS:
            yield Check(name, "ok", installed)
        else:
            others.append(f"{name} {installed}")
    yield Check("other requirements", "ok", ", ".join(others))

    for name, specifier in optional.items():
        installed = _installed_version(name)
        fix = _pip_install(f"{name}{specifier}")
        if installed is None:
            yield Check(name, "ok", f"not installed; only nnUNetv2_rmr_demo needs it: {fix}")
        elif not specifier.contains(installed, prereleases=True):
            yield Check(name, "warning", f"{installed}, nnUNetv2_rmr_demo needs {name}{specifier}", fix)
        else:
            yield Check(name, "ok", f"{installed} (optional)")


def _requirements() -> tuple[dict, dict]:
    """Name -> SpecifierSet: what our package and nnU-Net need together, and what only our demo needs."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    lines = [(line, True) for line in metadata.requires(DISTRIBUTION) or []]
    # without nnU-Net only its own line is lost: our package requires it, so it is reported as missing
    with contextlib.suppress(metadata.PackageNotFoundError):
        lines += [(line, False) for line in metadata.requires("nnunetv2") or []]
    needed: dict[str, SpecifierSet] = {}
    optional: dict[str, SpecifierSet] = {}
    for line, ours in lines:
        requirement = Requirement(line)
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed[name] = needed.get(name, SpecifierSet()) & requirement.specifier
        elif ours and requirement.marker.evaluate({"extra": "demo"}):
            optional[name] = requirement.specifier
    return needed, optional


def check_imports() -> Iterator[Check]:
    """An installed package can still fail to import: broken libraries, an interrupted upgrade, a shadowing folder."""
    for module in ("torch", "nnunetv2"):
        try:
            where = getattr(importlib.import_module(module), "__file__", None)
            # what an uninstall may leave behind imports as an empty namespace package
            problem = None if where else "only a folder without code is there"
        except (Exception, SystemExit) as error:
            problem = _describe(error)
        if problem:
            yield Check(f"import {module}", "FAIL", problem, _pip_install(_wanted(module), "--force-reinstall"))
        else:
            yield Check(f"import {module}", "ok", where)


def _wanted(name: str) -> str:
    """`name` with the range we need, if that can be told."""
    try:
        return f"{name}{_requirements()[0].get(name, '')}"
    except ImportError:  # PackageNotFoundError is one too
        return name


# ------------------------------------------------------------------------------------------------------------- paths

def check_paths() -> Iterator[Check]:
    for variable in NNUNET_PATHS:
        value = os.environ.get(variable, "").strip()
        if not value:
            folder = f"$HOME/nnUNet/{variable}"
            yield Check(variable, "FAIL", "not set", f'mkdir -p "{folder}" && {_set_variable(variable, folder)}'
                                                     f"  (put the second part into your shell's start file)")
            continue
        if not Path(value).is_absolute():
            # "~" lands here too: the shell does not expand it inside quotes, nor does nnU-Net
            fix = _set_variable(variable, str(Path(value).expanduser().resolve()))
            status: Status = "warning" if Path(value).is_dir() else "FAIL"
            yield Check(variable, status, f"{value} is not an absolute path: it means another folder elsewhere", fix)
            continue
        if not Path(value).is_dir():
            yield Check(variable, "FAIL", f"{value} is not a folder", f"mkdir -p {shlex.quote(value)}")
            continue
        try:
            # Tried, not asked: permission bits say nothing about read-only mounts, quotas and the superuser.
            with tempfile.TemporaryFile(dir=value):
                pass
        except OSError as error:
            reason = f"{value} can not be written to ({error.strerror})"
            fix = f"chmod u+rwx {shlex.quote(value)}  (or let {variable} name a folder of yours)"
            # Raw images may well lie on a read-only share.
            yield Check(variable, "warning" if variable == "nnUNet_raw" else "FAIL", reason, fix)
            continue
        yield _check_disk(variable, value)


def _check_disk(variable: str, folder: str) -> Check:
    free = shutil.disk_usage(folder).free / 1e9
    message = f"{folder}, writable, {free:.0f} GB free"
    if free >= LOW_DISK_GB or (variable == "nnUNet_raw" and free >= NO_DISK_GB):
        return Check(variable, "ok", message)
    fix = (f"free some space there, or move the folder: {_set_variable(variable, '/path/on/a/larger/disk')}; "
           f"what takes the space: du -sh {shlex.quote(folder)}/*")
    return Check(variable, "FAIL" if free < NO_DISK_GB and variable != "nnUNet_raw" else "warning", message, fix)


# ---------------------------------------------------------------------------------------------------------- trainers

def shim_trainers(folder: Path) -> dict[str, str]:
    """Trainer name -> module the shim imports it from, read without importing (torch may be missing)."""
    trainers: dict[str, str] = {}
    for file in sorted(folder.glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                trainers |= {alias.asname or alias.name: node.module for alias in node.names}
    return trainers


def check_ext_trainer() -> Iterator[Check]:
    try:
        ours = trainers_folder()
    except FileNotFoundError as error:
        yield Check(EXT_TRAINER, "FAIL", str(error), _reinstall())
        return
    folders = [folder for folder in os.environ.get(EXT_TRAINER, "").split(os.pathsep) if folder.strip()]
    present = [folder for folder in folders if Path(folder).is_dir()]
    whole = [folder for folder in present if (Path(folder) / "nnunetv2_rmr" / "__init__.py").is_file()]
    copies = [folder for folder in present if (Path(folder) / "nnunet_rmr_trainers.py").is_file()
              and not os.path.samefile(folder, ours)]
    others = [folder for folder in present if folder not in [*whole, *copies] and not os.path.samefile(folder, ours)]
    fix = _set_variable(EXT_TRAINER, os.pathsep.join([*others, _our_folder()]))

    if not folders:
        yield Check(EXT_TRAINER, "FAIL", "not set: nnU-Net does not find our trainers", fix)
    elif whole:
        # nnU-Net would throw away every module of ours that it imported from there
        yield Check(EXT_TRAINER, "FAIL", f"{whole[0]} holds the whole package instead of the shims only", fix)
    elif copies:
        yield Check(EXT_TRAINER, "warning", f"{copies[0]} belongs to another copy of {DISTRIBUTION}", fix)
    elif len(others) == len(present):
        yield Check(EXT_TRAINER, "FAIL", f"{os.pathsep.join(folders)} lacks our folder, {ours}", fix)
    else:
        yield Check(EXT_TRAINER, "ok", os.pathsep.join(folders))
    if len(present) < len(folders):
        missing = ", ".join(folder for folder in folders if folder not in present)
        yield Check(f"{EXT_TRAINER}, others", "warning", f"no such folder, nnU-Net skips it: {missing}", fix)


def check_trainers() -> Iterator[Check]:
    """Every trainer of the shim, by nnU-Net's own search; found classes must survive the way to a worker process."""
    try:
        trainers = shim_trainers(trainers_folder())
    except FileNotFoundError:  # reported by check_ext_trainer
        return
    if not trainers:
        yield Check("trainers", "FAIL", f"{trainers_folder()} names no trainer", _reinstall())
        return
    try:
        find = importlib.import_module("nnunetv2.utilities.find_objects").recursive_find_trainer_class_by_name
    except (Exception, SystemExit) as error:
        yield Check("trainers", "FAIL", f"nnU-Net's search can not be imported: {_describe(error)}",
                    _pip_install(_wanted("nnunetv2")))
        return
    if malformed := [variable for variable in PROCESS_COUNTS if not _is_number(variable)]:
        # nnU-Net converts them when it is imported, and tells neither the name nor that it is a variable
        yield Check("trainers", "FAIL", f"nnU-Net can not be imported while {' and '.join(malformed)} is no number",
                    f"unset {' '.join(malformed)}")
        return
    # the same trouble of many, such as an unset variable, is one
    alike: dict[tuple, list[Check]] = {}
    for name, module in trainers.items():
        check = _check_trainer(name, module, find)
        alike.setdefault((check.status, check.message, check.fix), []).append(check)
    for (status, message, fix), checks in alike.items():
        if status == "ok" or len(checks) == 1:
            yield from checks
        else:
            names = ", ".join(check.name for check in checks)
            yield Check(f"{len(checks)} trainers", status, f"{message} ({names})", fix)


def _check_trainer(name: str, module: str, find: Callable[[str], type]) -> Check:
    only_ours = _set_variable(EXT_TRAINER, _our_folder())
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:
        return Check(name, "FAIL", f"{module} can not be imported: {_describe(error)}", _reinstall())
    try:
        found = find(name)
    except RuntimeError:  # nnU-Net's message is long and says the same
        return Check(name, "FAIL", f"not found by nnU-Net in the folders of {EXT_TRAINER}", only_ours)
    except (Exception, SystemExit) as error:
        # ours can be imported, so it is a module of another folder: nnU-Net imports all of them
        return Check(name, "FAIL", f"nnU-Net's search stops at a broken module in a folder of {EXT_TRAINER}: "
                                   f"{_describe(error)}", only_ours)
    if found.__module__ != module:
        return Check(name, "FAIL", f"nnU-Net finds another class of this name first, in {found.__module__}", only_ours)
    try:
        if pickle.loads(pickle.dumps(found)) is not found:
            raise pickle.PicklingError("comes back as another class")
    except Exception as error:
        return Check(name, "FAIL", f"can not be sent to worker processes: {_describe(error)}", _reinstall())
    return Check(name, "ok", f"found in {module}, can be pickled")


# ------------------------------------------------------------------------------------------------------------ device

def check_device() -> Iterator[Check]:
    torch = _imported("torch")
    if torch is None:  # reported by check_imports
        return
    with warnings.catch_warnings(record=True) as caught:  # torch says in a warning why CUDA does not start
        warnings.simplefilter("always")
        cuda = torch.cuda.is_available()
    if cuda:
        yield _check_cuda(torch)
    elif torch.backends.mps.is_available():
        yield Check("device", "ok", "mps (Apple), shared memory; nnU-Net uses it only with: -device mps")
    elif os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1") and (gpus := _nvidia_gpus()):
        if torch.version.cuda is None:
            yield Check("device", "FAIL", f"torch {torch.__version__} is built without CUDA, but there is: {gpus}",
                        f"{_pip_install(_wanted('torch'), '--force-reinstall')}  (the command for your driver: "
                        f"https://pytorch.org/get-started/locally)")
        else:
            why = "".join(f": {str(warning.message).splitlines()[0]}" for warning in caught[:1])
            yield Check("device", "FAIL", f"torch (CUDA {torch.version.cuda}) can not use {gpus}{why}",
                        "nvidia-smi  (shows the highest CUDA version of your driver: update the driver, or install a "
                        "torch built for that version, https://pytorch.org/get-started/previous-versions)")
    else:
        yield Check("device", "warning", "cpu: training takes very long",
                    "add -device cpu to nnUNetv2_train and to the predict commands (nnU-Net's default is cuda)")


def _check_cuda(torch) -> Check:
    properties = torch.cuda.get_device_properties(0)
    message = f"cuda: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if torch.cuda.device_count() > 1:
        message += f" (first of {torch.cuda.device_count()})"
    try:
        # A GPU too old or too new for this torch is listed as available and fails at the first kernel.
        (torch.ones(8, device="cuda") + 1).cpu()
    except Exception as error:
        return Check("device", "FAIL", f"{message}, but it does not compute: {_describe(error)}",
                     "nvidia-smi shows whether another process holds the GPU; else install a torch that supports it: "
                     "https://pytorch.org/get-started/previous-versions")
    return Check("device", "ok", message)


def check_compile() -> Iterator[Check]:
    torch = _imported("torch")
    trainer = _imported("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    if torch is None or trainer is None:
        return
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    # nnU-Net's own decision, asked without building a trainer (which needs a dataset)
    asked = SimpleNamespace(device=torch.device(device), print_to_log_file=lambda *_: None)
    if not trainer.nnUNetTrainer._do_i_compile(asked):
        setting = os.environ.get("nnUNet_compile")
        yield Check("torch.compile", "ok", f"not used (device {device}, nnUNet_compile {setting or 'not set'})")
        return
    turn_off = _set_variable("nnUNet_compile", "0")
    lacking = []
    if importlib.util.find_spec("triton") is None:
        lacking.append("triton")
    if not any(shutil.which(name) for name in (os.environ.get("CC") or "cc", "gcc", "clang")):
        lacking.append("a C compiler")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        lacking.append("Python.h")
    if lacking:
        yield Check("torch.compile", "warning", f"will be used, but may fail without {', '.join(lacking)}",
                    f"{turn_off}  (or: apt-get install gcc python3-dev; pip install triton)")
    else:
        yield Check("torch.compile", "ok", f"will be used; to turn it off: {turn_off}")


# --------------------------------------------------------------------------------------------------------- processes

def check_processes() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts: list[tuple[str, str, str, Callable[[], int]]] = [
        ("augmentation workers", "nnUNet_n_proc_DA", "", _augmentation_workers),
        ("default processes", "nnUNet_def_n_proc",
         f"  # planning and preprocessing ignore it: give them -npfp {cores}, -np {cores}", _default_processes),
        ("torch threads", "OMP_NUM_THREADS", "", _torch_threads),
    ]
    for name, variable, remark, count in counts:
        fix = _set_variable(variable, str(cores)) + remark
        if variable in PROCESS_COUNTS and not _is_number(variable):
            yield Check(name, "FAIL", f"{variable} is no number: {os.environ[variable]!r}", fix)
            continue
        try:
            number = count()
        except Exception:  # torch or nnU-Net can not be imported, which check_imports or check_trainers reports
            continue
        message = f"{number} on {cores} core{'s' if cores > 1 else ''}"
        yield Check(name, "ok", message) if number <= cores else Check(name, "warning", message, fix)


def _is_number(variable: str) -> bool:
    return os.environ.get(variable, "0").strip().isdecimal()


def _augmentation_workers() -> int:
    return importlib.import_module("nnunetv2.utilities.default_n_proc_DA").get_allowed_n_proc_DA()


def _default_processes() -> int:
    return importlib.import_module("nnunetv2.configuration").default_num_processes


def _torch_threads() -> int:
    return importlib.import_module("torch").get_num_threads()


def check_open_files() -> Iterator[Check]:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        higher = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
        how = f"ulimit -n {higher}" if higher >= MIN_OPEN_FILES else \
            f"ask for a higher limit (yours ends at {hard}): * hard nofile 4096 in /etc/security/limits.conf"
        yield Check("open files", "warning", f"at most {soft}: nnU-Net's workers may die of 'too many open files'", how)
    else:
        yield Check("open files", "ok", "unlimited" if soft == resource.RLIM_INFINITY else f"at most {soft}")


# ----------------------------------------------------------------------------------------------------------- helpers

def _describe(error: BaseException) -> str:
    """One line; tracebacks tell a user nothing about what to type."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _imported(module: str):
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit):
        return None


def _installed_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _nvidia_gpus() -> str:
    """What the driver lists, '' without driver or GPU."""
    try:
        listed = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True,
                                text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ", ".join(listed.stdout.split("\n")).strip(", ") if listed.returncode == 0 else ""


def _python() -> str:
    """This interpreter: a bare `pip` is often the one of another environment."""
    return shlex.quote(sys.executable) if sys.executable else "python"


def _pip_install(requirement: str, *options: str) -> str:
    return " ".join([_python(), "-m pip install", *options, f'"{requirement}"'])


def _reinstall() -> str:
    """The command for our own package, from the checkout if it is one."""
    root = Path(__file__).resolve().parents[1]
    if (root / "pyproject.toml").is_file():
        return f"{_python()} -m pip install -e {shlex.quote(str(root))}"
    return _pip_install(DISTRIBUTION, "--force-reinstall")


def _our_folder() -> str:
    """As part of a command. The inner command stays right when the package moves; cmd.exe has nothing like it."""
    return str(trainers_folder()) if os.name == "nt" else "$(nnUNetv2_rmr_trainers)"


def _set_variable(variable: str, value: str) -> str:
    return f'set "{variable}={value}"' if os.name == "nt" else f'export {variable}="{value}"'
