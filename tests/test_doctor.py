"""nnUNetv2_rmr_doctor: what it reports in broken installations, and that its advice repairs them."""

import os
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunetv2_rmr.cli import doctor
from nnunetv2_rmr.cli.doctor import Check
from nnunetv2_rmr.ext_trainer import trainers_folder

RUN = "import sys; from nnunetv2_rmr.cli.doctor import main; sys.argv = ['nnUNetv2_rmr_doctor', *sys.argv[1:]]; main()"


def by_name(checks) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """A machine where all is well, as far as the environment goes; the tests break it."""
    for variable in doctor.NNUNET_PATHS:
        folder = tmp_path / variable
        folder.mkdir()
        monkeypatch.setenv(variable, str(folder))
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers_folder()))
    for variable in ("nnUNet_compile", "nnUNet_n_proc_DA", "nnUNet_def_n_proc", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)


# ------------------------------------------------------------------------------------------------------- the command

@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warning", 0), ("FAIL", 1)])
def test_exit_status_is_1_only_after_a_failure(monkeypatch, capsys, status, code):
    monkeypatch.setattr(doctor, "run_checks", lambda: [Check("disk", status, "some message", "type this")])
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_rmr_doctor"])
    with pytest.raises(SystemExit) as left:
        doctor.main()
    assert left.value.code == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [status, "disk:", "some", "message"]
    assert lines[1].split() == ["->", "type", "this"]


@pytest.mark.parametrize("error", [RuntimeError("first line\nsecond line"), SystemExit(3)])
def test_a_check_that_breaks_is_one_failure_and_prints_nothing(capsys, error):
    def check():
        print("chatter")
        yield Check("first", "ok", "done before")
        raise error

    checks = doctor.guarded(check)
    assert [(c.name, c.status) for c in checks] == [("first", "ok"), ("check", "FAIL")]
    assert "pip install" in checks[1].fix
    assert "\n" not in checks[1].message
    assert capsys.readouterr() == ("", "")


def test_a_healthy_installation_passes(monkeypatch):
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    run = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    named = re.findall(r"^(?:ok|warning) +(.*?):", run.stdout, re.MULTILINE)
    assert {*named} >= {"versions", "import torch", *doctor.NNUNET_PATHS, "nnUNet_extTrainer", "device",
                        "nnUNet_n_proc_DA"}
    assert f"{len(named)} checks: 0 failed" in run.stdout


def test_a_reader_that_has_enough_is_no_error():
    run = subprocess.run(f"{shlex.join([sys.executable, '-c', RUN])} | head -1", shell=True, capture_output=True,
                         text=True)
    assert run.stdout.count("\n") == 1 and run.stderr == ""


@pytest.mark.parametrize("missing", [("torch",), ("torch", "nnunetv2")])
def test_runs_where_packages_can_not_be_imported(missing):
    block = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); " + RUN
    run = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (1, "")
    for module in missing:
        assert re.search(rf"^FAIL +import {module}: .*\n +-> .*pip install", run.stdout, re.MULTILINE)
    assert " device:" not in run.stdout, "what needs the import is not tried"


def test_the_empty_folder_an_uninstall_leaves_is_no_package(tmp_path):
    (tmp_path / "nnunetv2" / "trainers").mkdir(parents=True)
    code = f"""
import sys
from nnunetv2_rmr.cli.doctor import check_imports
sys.modules["torch"] = None
sys.path[:] = [path for path in sys.path if "packages" not in path] + [{str(tmp_path)!r}]
for check in check_imports():
    print(check.status, check.message)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "FAIL ModuleNotFoundError: No module named 'nnunetv2.paths'" in run.stdout.splitlines()[1], run.stderr


# --------------------------------------------------------------------------------------------------------- versions

def test_versions_of_this_environment_are_accepted():
    assert {check.status for check in doctor.check_versions()} == {"ok"}


@pytest.mark.parametrize(("name", "version"), [("torch", "2.9.1"), ("nnunetv2", "2.7.0"), ("nnunetv2", "3.0"),
                                               ("batchgeneratorsv2", "0.1"), ("numpy", "1.20")])
def test_a_version_outside_the_range_fails_with_the_range_to_install(monkeypatch, name, version):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda d: version if d == name else real(d))
    check = by_name(doctor.check_versions())[name]
    assert check.status == "FAIL"
    assert version in check.message
    assert f"-m pip install '{name}" in check.fix


def test_a_missing_requirement_fails_and_a_missing_extra_does_not(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda d: None if d in ("acvl-utils", "nilearn") else real(d))
    found = {(check.name, check.status) for check in doctor.check_versions()}
    assert found == {("acvl-utils", "FAIL"), ("versions", "ok")}, "nilearn is not needed"


@pytest.mark.parametrize(("program", "status", "told"), [
    ("echo dcm2niiX version v1", "ok", "dcm2niix runs"), ("echo libz.so is missing >&2", "FAIL", "libz.so is missing")])
def test_dcm2niix_is_tried(monkeypatch, tmp_path, program, status, told):
    (tmp_path / "dcm2niix").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "dcm2niix").chmod(0o755)
    monkeypatch.setitem(sys.modules, "dcm2niix", SimpleNamespace(bin=str(tmp_path / "dcm2niix")))
    monkeypatch.setattr("nnunetv2_rmr.dicom.installed.find_spec", lambda name: name)
    (check,) = doctor.check_dicom()
    assert check.status == status and told in check.message


def test_a_missing_extra_for_dicom_is_said_with_what_to_type(monkeypatch):
    monkeypatch.setattr("nnunetv2_rmr.dicom.installed.find_spec", lambda name: None if name == "highdicom" else name)
    (check,) = doctor.check_dicom()
    assert check.status == "ok" and "need highdicom" in check.message and "nnunetv2-rmr[dicom]" in check.fix


def test_a_package_used_without_being_installed_is_told_to_install_itself(monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", requires)
    checks = doctor.guarded(doctor.check_versions)
    assert [check.status for check in checks] == ["FAIL"]
    assert "pip install" in checks[0].fix


# ------------------------------------------------------------------------------------------------------------- paths

def test_writable_folders_are_ok_and_stay_empty():
    assert {check.status for check in doctor.check_paths()} <= {"ok", "warning"}  # warning: this machine's disk is full
    assert not any(os.listdir(os.environ[variable]) for variable in doctor.NNUNET_PATHS)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_the_advice_for_an_unset_path_repairs_it(monkeypatch, tmp_path, value):
    monkeypatch.setenv("HOME", str(tmp_path / "home of somebody"))
    if value is None:
        monkeypatch.delenv("nnUNet_raw")
    else:
        monkeypatch.setenv("nnUNet_raw", value)
    check = by_name(doctor.check_paths())["nnUNet_raw"]
    assert (check.status, check.message) == ("FAIL", "not set")
    command = check.fix.split("  (")[0]
    typed = subprocess.run(f'{command} && printf "%s" "$nnUNet_raw"', shell=True, capture_output=True, text=True)
    monkeypatch.setenv("nnUNet_raw", typed.stdout)
    assert by_name(doctor.check_paths())["nnUNet_raw"].status != "FAIL"


def test_the_advice_for_a_missing_folder_makes_it(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "my results" / "here"))
    check = by_name(doctor.check_paths())["nnUNet_results"]
    assert check.status == "FAIL"
    subprocess.run(check.fix, shell=True, check=True)
    assert by_name(doctor.check_paths())["nnUNet_results"].status != "FAIL"


@pytest.mark.parametrize("value", ["~/nnUNet_raw", "nnUNet_raw"])
def test_a_folder_that_is_not_absolute_fails_with_the_one_that_is(monkeypatch, tmp_path, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("nnUNet_raw", value)
    check = by_name(doctor.check_paths())["nnUNet_raw"]
    assert check.status == "FAIL" and f'"{tmp_path / "nnUNet_raw"}"' in check.fix


def test_a_read_only_folder_fails_except_for_the_raw_images(monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda folder, mode: False)
    checks = by_name(doctor.check_paths())
    assert [checks[variable].status for variable in doctor.NNUNET_PATHS] == ["warning", "FAIL", "FAIL"]


@pytest.mark.parametrize(("free", "statuses"), [(500e9, ["ok", "ok", "ok"]), (5e9, ["warning"] * 3),
                                                (1e8, ["warning", "FAIL", "FAIL"])])
def test_a_full_disk_is_told_where_nnunet_writes(monkeypatch, free, statuses):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    checks = by_name(doctor.check_paths())
    assert [checks[variable].status for variable in doctor.NNUNET_PATHS] == statuses


# ---------------------------------------------------------------------------------------------- data sets and models

def test_a_data_set_changed_after_planning_is_told_and_the_advice_repairs_it(tmp_path):
    raw, planned = (tmp_path / name / "Dataset101_BraTS" / "dataset.json" for name in doctor.NNUNET_PATHS[:2])
    for file in (raw, planned):
        file.parent.mkdir()
        file.write_text('{"numTraining": 5}')
    assert not list(doctor.check_contents())
    raw.write_text('{"numTraining": 6}')
    (check,) = doctor.check_contents()
    assert (check.name, check.status) == ("Dataset101_BraTS", "warning")
    subprocess.run(check.fix.split("  (")[0], shell=True, check=True)
    assert not planned.parent.exists() and raw.is_file() and not list(doctor.check_contents())


# ---------------------------------------------------------------------------------------------------------- trainers

TRAINER = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
class nnUNetTrainerOfTest(nnUNetTrainer):
    pass
"""


def type_it(command: str) -> str:
    """nnUNet_extTrainer after the advised command was typed, with our scripts on the PATH."""
    env = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    typed = subprocess.run(f'{command}; printf "%s" "$nnUNet_extTrainer"', shell=True, env=env, capture_output=True,
                           text=True, check=True)
    return typed.stdout


def test_our_folder_in_the_variable_is_ok(capsys):
    (check,) = doctor.guarded(doctor.check_trainers)
    assert check.status == "ok"
    assert capsys.readouterr() == ("", "")  # nnU-Net tells of every module it looks into


@pytest.mark.parametrize("before", ["", "gone", "others", "whole"])
def test_the_advice_adds_our_folder_and_keeps_those_of_other_extensions(monkeypatch, tmp_path, before):
    (tmp_path / "others").mkdir()
    value = {"": "", "whole": str(Path(doctor.__file__).parents[2])}.get(before, str(tmp_path / before))
    monkeypatch.setenv("nnUNet_extTrainer", value)
    (check,) = doctor.check_trainers()
    assert check.status == "FAIL"
    kept = [value] if before == "others" else []
    assert type_it(check.fix).split(os.pathsep) == [*kept, str(trainers_folder())]


@pytest.fixture
def extension(monkeypatch, tmp_path):
    """An installed package with one trainer, and the folder with its shim in the place of ours; returns a function
    that fills the package's module and puts further folders before the shim's."""
    monkeypatch.syspath_prepend(tmp_path / "site")

    def install(code: str = TRAINER, **files_before: str) -> Check:
        for name, content in {"site/package_of_test.py": code,
                              "shims/shim_of_test.py": "from package_of_test import nnUNetTrainerOfTest\n",
                              **{f"before/{name}.py": text for name, text in files_before.items()}}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content)
        (tmp_path / "before").mkdir(exist_ok=True)
        monkeypatch.delitem(sys.modules, "package_of_test", raising=False)
        monkeypatch.setattr(doctor, "trainers_folder", lambda: tmp_path / "shims")
        monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([str(tmp_path / "before"), str(tmp_path / "shims")]))
        (check,) = doctor.guarded(doctor.check_trainers)
        return check

    yield install
    sys.modules.pop("package_of_test", None)


def test_a_trainer_named_in_a_shim_is_found(extension):
    assert extension().status == "ok"


@pytest.mark.parametrize(("code", "before", "said"), [
    ("import a_library_nobody_has\n", {}, "a_library_nobody_has"),
    (TRAINER, {"script_of_somebody": "import sys; sys.exit('usage: ...')"}, "SystemExit: usage"),
    (TRAINER, {"stale_copy": TRAINER}, "finds another nnUNetTrainerOfTest first, in stale_copy"),
])
def test_what_keeps_nnunet_from_our_trainers_is_named(extension, code, before, said):
    check = extension(code, **before)
    assert check.status == "FAIL" and said in check.message and check.fix


# ------------------------------------------------------------------------------------------------- device, processes

class Tensor:
    def __init__(self, error: Exception | None):
        self.error = error

    def __add__(self, other):
        if self.error:
            raise self.error
        return self

    def cpu(self):
        return self


def fake_torch(monkeypatch, cuda=False, mps=False, built_for: str | None = "13.0", error: Exception | None = None):
    fake = SimpleNamespace(
        __version__="2.15.0",
        version=SimpleNamespace(cuda=built_for),
        ones=lambda n, device: Tensor(error),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        cuda=SimpleNamespace(
            is_available=lambda: cuda,
            get_device_properties=lambda index: SimpleNamespace(name="Some GPU", total_memory=24 * 2**30)),
    )
    monkeypatch.setitem(sys.modules, "torch", fake)


def test_a_gpu_is_named_with_its_memory(monkeypatch):
    monkeypatch.setenv("nnUNet_compile", "f")
    fake_torch(monkeypatch, cuda=True)
    (check,) = doctor.check_device()
    assert check.status == "ok"
    assert "Some GPU, 24 GiB" in check.message


def test_a_gpu_this_torch_has_no_kernels_for_fails(monkeypatch):
    fake_torch(monkeypatch, cuda=True, error=RuntimeError("CUDA error: no kernel image is available"))
    check = next(doctor.check_device())
    assert check.status == "FAIL"
    assert "no kernel image" in check.message


@pytest.mark.parametrize("built_for", [None, "13.0"])
def test_a_gpu_torch_does_not_see_fails(monkeypatch, built_for):
    fake_torch(monkeypatch, built_for=built_for)
    monkeypatch.setattr(doctor, "_nvidia_gpus", lambda: "Some GPU")
    (check,) = doctor.check_device()
    assert check.status == "FAIL"
    assert "Some GPU" in check.message
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    assert [check.status for check in doctor.check_device()] == ["warning"]


@pytest.mark.parametrize(("mps", "status"), [(True, "ok"), (False, "warning")])
def test_without_nvidia_the_option_to_type_is_told(monkeypatch, mps, status):
    fake_torch(monkeypatch, mps=mps)
    monkeypatch.setattr(doctor, "_nvidia_gpus", lambda: "")
    (check,) = doctor.check_device()
    assert check.status == status
    assert f"-device {'mps' if mps else 'cpu'}" in f"{check.message} {check.fix}"


def test_compile_needs_triton_unless_it_is_turned_off(monkeypatch):
    fake_torch(monkeypatch, cuda=True)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    device, check = doctor.check_device()
    assert (device.status, check.name, check.status) == ("ok", "torch.compile", "warning")
    monkeypatch.setenv("nnUNet_compile", "f")
    assert [check.name for check in doctor.check_device()] == ["device"]


def test_process_counts_are_compared_with_the_cores(monkeypatch):
    for value, status in (("10000", "warning"), ("many", "warning"), ("1", "ok")):
        monkeypatch.setenv("nnUNet_def_n_proc", value)
        monkeypatch.setenv("nnUNet_n_proc_DA", "1")
        checks = by_name(doctor.check_processes())
        assert checks["nnUNet_def_n_proc"].status == status
        assert status == "ok" or "export nnUNet_def_n_proc=" in checks["nnUNet_def_n_proc"].fix
        assert checks["nnUNet_n_proc_DA"].message.startswith("1 processes on ")
