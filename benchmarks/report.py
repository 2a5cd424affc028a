"""What every benchmark says beside its numbers: the machine, the versions, its arguments; printed, and as JSON."""

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch


def machine(device: str) -> dict[str, str | int]:
    return {"device": torch.cuda.get_device_name() if device == "cuda" else f"CPU, {os.cpu_count()} cores",
            "threads": torch.get_num_threads(), "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "nnunetv2", "nnunetv2-rmr")}}


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, help="file for the numbers, machine and arguments")


def print_machine(args: argparse.Namespace) -> None:
    """args.device, if there is one, is where the benchmark runs."""
    print(", ".join(f"{name} {value}" for name, value in machine(getattr(args, "device", "cpu")).items()))
    print(", ".join(f"{name} {value}" for name, value in vars(args).items() if name != "json"), "\n")


def write_json(args: argparse.Namespace, rows: list[dict]) -> None:
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(getattr(args, "device", "cpu")), "rows": rows,
                                         "arguments": {k: str(v) for k, v in vars(args).items()}}, indent=1))
