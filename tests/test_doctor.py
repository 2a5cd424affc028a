"""nnUNetv2_rmr_doctor: what it reports in broken installations, and that its advice repairs them."""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nnunetv2_rmr import doctor
from nnunetv2_rmr.cli import doctor as cli
from nnunetv2_rmr.doctor import Check
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
    for variable in ("nnUNet_compile", *doctor.PROCESS_COUNTS, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)


# ------------------------------------------------------------------------------------------------------- the command

def test_a_failure_without_advice_can_not_be_written():
    with pytest.raises(ValueError, match="what to do"):
        Check("torch", "FAIL", "is missing")


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warning", 0), ("FAIL", 1)])
def test_exit_status_is_1_only_after_a_failure(monkeypatch, capsys, status, code):
    monkeypatch.setattr(cli, "run_checks", lambda: [Check("disk", status, "some message", "type this")])
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_rmr_doctor"])
    with pytest.raises(SystemExit) as left:
        cli.main()
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

    checks = doctor._guarded("second", check)
    assert [(c.name, c.status) for c in checks] == [("first", "ok"), ("second", "FAIL")]
    assert "\n" not in checks[1].message
    assert capsys.readouterr() == ("", "")


def test_a_healthy_installation_passes(monkeypatch):
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    run = subprocess.run([sys.executable, "-c", RUN, "--json"], capture_output=True, text=True)
    assert run.stderr == ""
    report = json.loads(run.stdout)
    assert [check for check in report["checks"] if check["status"] == "FAIL"] == []
    assert (run.returncode, report["failed"]) == (0, 0)
    named = {check["name"] for check in report["checks"]}
    assert named >= {"python", "nnunetv2", "torch", "import torch", *doctor.NNUNET_PATHS, "nnUNet_extTrainer", "device",
                     "torch.compile", "augmentation workers", "default processes", "torch threads", "open files"}
    assert named >= set(doctor.shim_trainers(trainers_folder()))


@pytest.mark.parametrize("missing", [("torch",), ("nnunetv2",), ("torch", "nnunetv2", "packaging")])
def test_runs_where_packages_can_not_be_imported(missing):
    block = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); " + RUN
    run = subprocess.run([sys.executable, "-c", block, "--json"], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr == ""
    checks = {check["name"]: check for check in json.loads(run.stdout)["checks"]}
    for module in set(missing) - {"packaging"}:
        assert checks[f"import {module}"]["status"] == "FAIL"
        assert "pip install" in checks[f"import {module}"]["fix"]
    assert not any("the check itself broke" in check["message"] for check in checks.values())


def test_the_empty_folder_an_uninstall_leaves_is_no_package(tmp_path):
    (tmp_path / "nnunetv2" / "trainers").mkdir(parents=True)
    code = f"""
import sys
from nnunetv2_rmr.doctor import check_imports
sys.modules["torch"] = None
sys.path[:] = [path for path in sys.path if "packages" not in path] + [{str(tmp_path)!r}]
for check in check_imports():
    print(check.status, check.message)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.splitlines()[1] == "FAIL only a folder without code is there", run.stderr


def test_a_reader_that_stops_early_gets_no_traceback():
    # the first write after the reader left fails: as with `nnUNetv2_rmr_doctor | head -1`
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.modules.update(torch=None, nnunetv2=None); " + RUN],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        run.stdout.close()
        assert run.stderr.read() == ""


# --------------------------------------------------------------------------------------------------------- versions

def test_versions_of_this_environment_are_accepted():
    assert {check.status for check in doctor.check_versions()} == {"ok"}


@pytest.mark.parametrize(("name", "version"), [("torch", "2.9.1"), ("nnunetv2", "2.7.0"), ("nnunetv2", "3.0"),
                                               ("batchgeneratorsv2", "0.1"), ("numpy", "1.20")])
def test_a_version_outside_the_range_fails_with_the_range_to_install(monkeypatch, name, version):
    real = doctor._installed_version
    monkeypatch.setattr(doctor, "_installed_version", lambda d: version if d == name else real(d))
    check = by_name(doctor.check_versions())[name]
    assert check.status == "FAIL"
    assert version in check.message
    assert f'-m pip install "{name}' in check.fix


def test_a_missing_requirement_fails_and_a_missing_extra_does_not(monkeypatch):
    real = doctor._installed_version
    monkeypatch.setattr(doctor, "_installed_version", lambda d: None if d in ("acvl-utils", "nilearn") else real(d))
    checks = by_name(doctor.check_versions())
    assert checks["acvl-utils"].status == "FAIL"
    assert checks["nilearn"].status == "ok"
    assert "nnUNetv2_rmr_demo" in checks["nilearn"].message


def test_a_package_used_without_being_installed_is_told_to_install_itself(monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", requires)
    checks = list(doctor.check_versions())
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


def test_a_tilde_that_no_shell_expanded_fails_and_a_relative_folder_warns(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("nnUNet_raw", "~/nnUNet_raw")
    monkeypatch.setenv("nnUNet_results", "nnUNet_results")
    checks = by_name(doctor.check_paths())
    assert checks["nnUNet_raw"].status == "FAIL"
    assert f'"{tmp_path / "nnUNet_raw"}"' in checks["nnUNet_raw"].fix
    assert checks["nnUNet_results"].status == "warning"


def test_a_read_only_folder_fails_except_for_the_raw_images(monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    checks = by_name(doctor.check_paths())
    assert [checks[variable].status for variable in doctor.NNUNET_PATHS] == ["warning", "FAIL", "FAIL"]


@pytest.mark.parametrize(("free", "statuses"), [(500e9, ["ok", "ok", "ok"]), (5e9, ["ok", "warning", "warning"]),
                                                (1e8, ["warning", "FAIL", "FAIL"])])
def test_a_full_disk_is_told_where_nnunet_writes(monkeypatch, free, statuses):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    checks = by_name(doctor.check_paths())
    assert [checks[variable].status for variable in doctor.NNUNET_PATHS] == statuses


# ----------------------------------------------------------------------------------------------------- ext trainer

def type_it(command: str) -> str:
    """nnUNet_extTrainer after the advised command was typed, with our scripts on the PATH."""
    env = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    typed = subprocess.run(f'{command}; printf "%s" "$nnUNet_extTrainer"', shell=True, env=env, capture_output=True,
                           text=True, check=True)
    return typed.stdout


def ext_trainer_statuses() -> list[str]:
    return [check.status for check in doctor.check_ext_trainer()]


def test_our_folder_in_the_variable_is_ok():
    assert ext_trainer_statuses() == ["ok"]


def test_the_advice_for_an_unset_variable_repairs_it(monkeypatch):
    monkeypatch.delenv("nnUNet_extTrainer")
    (check,) = doctor.check_ext_trainer()
    assert check.status == "FAIL"
    monkeypatch.setenv("nnUNet_extTrainer", type_it(check.fix))
    assert ext_trainer_statuses() == ["ok"]


def test_the_advice_keeps_the_folders_of_other_extensions(monkeypatch, tmp_path):
    other = tmp_path / "trainers of others"
    other.mkdir()
    monkeypatch.setenv("nnUNet_extTrainer", str(other))
    (check,) = doctor.check_ext_trainer()
    assert check.status == "FAIL"
    value = type_it(check.fix)
    assert value.split(os.pathsep) == [str(other), str(trainers_folder())]
    monkeypatch.setenv("nnUNet_extTrainer", value)
    assert ext_trainer_statuses() == ["ok"]


def test_a_folder_that_is_gone_warns(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([str(tmp_path / "gone"), str(trainers_folder())]))
    checks = list(doctor.check_ext_trainer())
    assert [check.status for check in checks] == ["ok", "warning"]
    assert str(tmp_path / "gone") in checks[1].message
    assert type_it(checks[1].fix) == str(trainers_folder())


def test_a_folder_with_the_whole_package_fails(monkeypatch):
    # nnU-Net would import the package from there and throw it away afterwards
    monkeypatch.setenv("nnUNet_extTrainer", str(Path(doctor.__file__).parents[1]))
    (check,) = doctor.check_ext_trainer()
    assert check.status == "FAIL"
    assert type_it(check.fix) == str(trainers_folder())


def test_the_shims_of_another_copy_warn(monkeypatch, tmp_path):
    copy = shutil.copytree(trainers_folder(), tmp_path / "copy")
    monkeypatch.setenv("nnUNet_extTrainer", str(copy))
    (check,) = doctor.check_ext_trainer()
    assert check.status == "warning"
    assert type_it(check.fix) == str(trainers_folder())


# ---------------------------------------------------------------------------------------------------------- trainers

TRAINER = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
class nnUNetTrainerOfTest(nnUNetTrainer):
    pass
"""
# Looks right to nnU-Net, but no other process can find it under its qualified name.
UNPICKLABLE = TRAINER + "nnUNetTrainerOfTest.__qualname__ = 'somewhere.nnUNetTrainerOfTest'\n"


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
        monkeypatch.delitem(sys.modules, "package_of_test", raising=False)
        monkeypatch.setattr(doctor, "trainers_folder", lambda: tmp_path / "shims")
        monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([str(tmp_path / "before"), str(tmp_path / "shims")]))
        (check,) = doctor._guarded("trainers", doctor.check_trainers)
        assert check.name == "nnUNetTrainerOfTest"
        return check

    yield install
    sys.modules.pop("package_of_test", None)


def test_a_trainer_named_in_a_shim_is_found(extension, capsys):
    assert extension().status == "ok"
    assert capsys.readouterr() == ("", "")  # nnU-Net tells of every module it looks into


def test_a_broken_trainer_names_its_error(extension):
    check = extension("import a_library_nobody_has\n")
    assert check.status == "FAIL"
    assert "a_library_nobody_has" in check.message


def test_a_trainer_that_can_not_be_pickled_fails(extension):
    check = extension(UNPICKLABLE)
    assert check.status == "FAIL"
    assert "worker" in check.message


def test_a_broken_module_in_another_folder_is_blamed(extension):
    check = extension(script_of_somebody="import sys; sys.exit('usage: ...')")
    assert check.status == "FAIL"
    assert "SystemExit: usage" in check.message
    assert "nnUNet_extTrainer" in check.fix


def test_another_class_of_the_same_name_is_told(extension):
    check = extension(stale_copy=TRAINER)
    assert check.status == "FAIL"
    assert "stale_copy" in check.message


def test_trainers_nnunet_does_not_find_are_one_failure_that_names_them(monkeypatch):
    monkeypatch.delenv("nnUNet_extTrainer")
    (check,) = doctor.check_trainers()
    trainers = doctor.shim_trainers(trainers_folder())
    assert check.name == f"{len(trainers)} trainers"
    assert check.status == "FAIL"
    assert all(name in check.message for name in trainers)
    assert "nnUNetv2_rmr_trainers" in check.fix


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
        device=torch.device,
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        cuda=SimpleNamespace(
            is_available=lambda: cuda, device_count=lambda: 2,
            get_device_properties=lambda index: SimpleNamespace(name="Some GPU", total_memory=24 * 2**30)),
    )
    real = doctor._imported
    monkeypatch.setattr(doctor, "_imported", lambda module: fake if module == "torch" else real(module))


def test_a_gpu_is_named_with_its_memory(monkeypatch):
    fake_torch(monkeypatch, cuda=True)
    (check,) = doctor.check_device()
    assert check.status == "ok"
    assert "Some GPU, 24 GiB" in check.message


def test_a_gpu_this_torch_has_no_kernels_for_fails(monkeypatch):
    fake_torch(monkeypatch, cuda=True, error=RuntimeError("CUDA error: no kernel image is available"))
    (check,) = doctor.check_device()
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


def test_compile_follows_nnunets_own_decision(monkeypatch):
    fake_torch(monkeypatch)
    assert ["not used" in check.message for check in doctor.check_compile()] == [True]
    fake_torch(monkeypatch, cuda=True)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    (check,) = doctor.check_compile()
    assert (check.status, "triton" in check.message) == ("warning", True)
    monkeypatch.setenv("nnUNet_compile", "f")
    assert ["not used" in check.message for check in doctor.check_compile()] == [True]


def test_process_counts_are_compared_with_the_cores(monkeypatch):
    monkeypatch.setattr(doctor, "_default_processes", lambda: 10_000)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    checks = by_name(doctor.check_processes())
    assert checks["default processes"].status == "warning"
    assert "export nnUNet_def_n_proc=" in checks["default processes"].fix
    assert checks["augmentation workers"].status == "ok"
    assert checks["augmentation workers"].message.startswith("1 on ")


def test_a_process_count_that_is_no_number_fails(monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "many")
    check = by_name(doctor.check_processes())["augmentation workers"]
    assert check.status == "FAIL"
    assert "export nnUNet_n_proc_DA=" in check.fix
    (check,) = doctor.check_trainers()  # nnU-Net can not be imported then, and says something else
    assert check.status == "FAIL"
    assert check.fix == "unset nnUNet_n_proc_DA"


@pytest.mark.parametrize(("limits", "status", "advice"), [
    ((4096, 4096), "ok", None), ((-1, -1), "ok", None), ((256, -1), "warning", "ulimit -n 4096"),
    ((256, 2048), "warning", "ulimit -n 2048"), ((256, 512), "warning", "limits.conf")])
def test_the_advised_open_file_limit_is_one_the_user_may_set(monkeypatch, limits, status, advice):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    (check,) = doctor.check_open_files()
    assert check.status == status
    assert advice is None or advice in check.fix
