"""Models that would run code, or that are none: every command that loads a model refuses them, and nothing is run."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tiny
import torch
from campaign.commands import DATASET, MODEL, TRAIN, Ground
from campaign.outcome import Outcome

CHECKPOINT = Path("fold_0", "checkpoint_final.pth")


class Runs:
    """Unpickled, it calls a function."""

    def __init__(self, function: Callable, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Sly(dict):
    """Looks like a dictionary."""

    def __init__(self, run: Runs, content: dict):
        super().__init__(content)
        self.run = run

    def __reduce__(self):
        return self.run.__reduce__()


class StrangeNetwork(torch.nn.Module):
    pass


def checkpoints(file: Path) -> dict[str, Callable[[dict], object]]:
    """What is done to a good checkpoint; `file` is made if something runs."""
    run = Runs(os.mkdir, str(file))

    def at(*place: str):
        def put(content: dict) -> dict:
            inner = content
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = run
            return content
        return put

    weights = "network_weights"
    return {
        "a command beside the weights": at("more"), "a command in the weights": at(weights, "more"),
        "a command as the weights": at(weights), "a command in init_args": at("init_args", "more"),
        "a command in the logging": at("logging", "more"), "a command as the trainer's name": at("trainer_name"),
        "a command as mirroring axes": at("inference_allowed_mirroring_axes"),
        "a command as optimizer state": at("optimizer_state"),
        "a command instead of a dictionary": lambda content: run,
        "a dictionary that is none": lambda content: Sly(run, content),
        "a command as a key": lambda content: content | {(1, run): 0},
        "a command in a list": lambda content: content | {"more": [[run]]},
        "exec": lambda content: content | {"more": Runs(exec, f"import os; os.mkdir({str(file)!r})")},
        "eval": lambda content: content | {"more": Runs(eval, f"__import__('os').mkdir({str(file)!r})")},
        "os.system": lambda content: content | {"more": Runs(os.system, f"mkdir {file}")},
        "functools.partial": lambda content: content | {"more": Runs(functools.partial(os.mkdir, str(file)))},
        "torch.load of another file": lambda content: content | {"more": Runs(torch.load, str(file))},
        "numpy.load": lambda content: content | {"more": Runs(np.load, str(file), None, True)},
        "a whole network": lambda content: content | {weights: StrangeNetwork()},
        "an array of objects": lambda content: content | {"more": np.array([run, 1], object)},
        "no dictionary": lambda content: [1, 2, 3], "no weights": lambda content: {"trainer_name": "nnUNetTrainerRMR"},
        "weights of another network": lambda content: content | {weights: {"w": torch.ones(3)}},
        "weights that are text": lambda content: content | {weights: dict.fromkeys(content[weights], "w")},
    }


def plans(folder: Path) -> dict[str, Callable[[dict, dict], None]]:
    """What is done to good plans and to a good dataset.json; `folder` holds the module `evil`."""
    def architecture(key: str, name: object):
        def change(plans: dict, dataset: dict) -> None:
            found = plans["configurations"]["3d_fullres"]["architecture"], plans["configurations"]["3d_tiny"].get(
                "architecture")
            for one in filter(None, found):
                if key == "network_class_name":
                    one[key] = name
                else:
                    one["arch_kwargs"][key] = name
                    one["_kw_requires_import"] = sorted({*one["_kw_requires_import"], key})
        return change

    def configuration(key: str, name: object):
        def change(plans: dict, dataset: dict) -> None:
            for one in plans["configurations"].values():
                one[key] = name
        return change

    return {
        "nonlin: os.system": architecture("nonlin", "os.system"),
        "conv_op: os.mkdir": architecture("conv_op", "os.mkdir"),
        "norm_op: a module of its own": architecture("norm_op", "evil.Network"),
        "dropout_op: subprocess.Popen": architecture("dropout_op", "subprocess.Popen"),
        "nonlin_kwargs: builtins.exec": architecture("nonlin_kwargs", "builtins.exec"),
        "network: os.system": architecture("network_class_name", "os.system"),
        "network: a module of its own": architecture("network_class_name", "evil.Network"),
        "network: torch.hub.load": architecture("network_class_name", "torch.hub.load"),
        "network: torch.load": architecture("network_class_name", "torch.load"),
        "network: a list": architecture("network_class_name", ["os.system"]),
        "network: nnU-Net's training": architecture("network_class_name", "nnunetv2.run.run_training.run_training"),
        "preprocessor: a class of nnU-Net's that is none": configuration("preprocessor_name", "nnUNetPredictor"),
        "resampling: no function of nnU-Net's": configuration("resampling_fn_data", "evil"),
        "normalisation: no scheme": configuration("normalization_schemes", ["os.system"] * 3),
        "reader: no reader": lambda plans, dataset: plans.update(image_reader_writer="os"),
        "label manager: none": lambda plans, dataset: plans.update(label_manager="run"),
        "a reader that no nnU-Net has": lambda plans, dataset: plans.update(image_reader_writer="evil"),
        "plans of {}": lambda plans, dataset: plans.clear(),
        "dataset.json of {}": lambda plans, dataset: dataset.clear(),
        "no configurations": lambda plans, dataset: plans.update(configurations={}),
        "a patch of text": configuration("patch_size", "large"),
        "spacing of zeros": configuration("spacing", [0, 0, 0]),
    }


FILES = {"an empty checkpoint": b"", "a web page": b"<html>not found</html>",
         "a zip of nothing": b"PK\x05\x06" + 18 * b"\0", "an old pickle": b"cos\nmkdir\n(S'%s'\ntR."}


def hostile(ground: Ground, out: Path) -> Outcome:
    outcome = Outcome("hostile models")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    ran = out / "ran"
    (out / "evil.py").write_text(f"import os, torch\nos.makedirs({str(ran)!r})\nclass Network(torch.nn.Module): pass\n")
    good = torch.load(ground.model / CHECKPOINT, map_location="cpu", weights_only=False)
    model = out / DATASET / MODEL

    def attempt(what: str, of_plans: bool = False) -> None:
        for name, words in commands(ground, model, out).items():
            if name.startswith("train") and of_plans:
                continue  # a training has its own plans
            env = ground.env | {"PYTHONPATH": str(out), "nnUNet_results": str(out)}
            result = tiny.run(*words, env=env, check=False)
            own = name.startswith("train")  # nnU-Net's command: our refusal is its traceback's last line
            problems = [told for told, bad in (
                ("IT RAN", ran.exists()), ("exit status 0", result.returncode == 0),
                ("a traceback", "Traceback" in result.stdout and not own),
                ("not a word", not re.search(r"^ERROR|error: |\w+(Refused|Error): ", result.stdout, re.M))) if bad]
            shutil.rmtree(ran, ignore_errors=True)
            if problems:
                outcome.wrong(f"{name}, {what}: {', '.join(problems)}: {result.stdout.strip()[-300:]}")
            else:
                outcome.refused(True)

    def fresh() -> None:
        shutil.rmtree(out / DATASET, ignore_errors=True)
        shutil.copytree(ground.model, model)

    for what, change in checkpoints(ran).items():
        fresh()
        torch.save(change(good | {key: dict(good[key]) for key in ("network_weights", "init_args", "logging")}),
                   model / CHECKPOINT)
        attempt(what)
    for what, change in plans(out).items():
        fresh()
        files = [model / "plans.json", model / "dataset.json"]
        contents = [json.loads(file.read_text()) for file in files]
        change(*contents)
        for file, content in zip(files, contents):
            file.write_text(json.dumps(content))
        attempt(what, of_plans=True)
    for what, content in FILES.items():
        fresh()
        (model / CHECKPOINT).write_bytes(content.replace(b"%s", str(ran).encode()))
        attempt(what)
    shutil.rmtree(out)
    return outcome


def commands(ground: Ground, model: Path, out: Path) -> dict[str, tuple]:
    folder = out / "results"
    return {
        "predict": ("nnUNetv2_rmr_predict_from_modelfolder", "-i", ground.images, "-o", folder, "-m", model, "-f", 0,
                    "-device", "cpu", "--disable_tta", "-npp", 0, "-nps", 0),
        "benchmark": ("nnUNetv2_rmr_benchmark", "-i", ground.images, "-l", ground.labels, "-m", f"x={model}", "-o",
                      folder, "--corruptions", "noise", "-f", 0, "-device", "cpu", "--disable_tta"),
        "train --c": (*TRAIN, "--c"),
        "train -pretrained_weights": (*TRAIN[:3], 1, *TRAIN[4:], "-pretrained_weights", model / CHECKPOINT),
    }
