"""`nnUNetv2_rmr_train_ddp`: nnUNetv2_train in every process that torchrun starts, on one machine or more.

nnU-Net's own entry point runs, so its arguments are there and mean what they mean for nnU-Net.
"""

import argparse
import sys

from nnunetv2_rmr.cli.nnunet_arguments import check_arguments
from nnunetv2_rmr.ext_trainer import add_to_ext_trainer


def main() -> None:
    parser = argparse.ArgumentParser(prog="nnUNetv2_rmr_train_ddp", add_help=False, allow_abbrev=False)
    parser.add_argument("-device", default="cuda")
    parser.add_argument("-num_gpus", type=int, default=1)
    parser.add_argument("-backend", default=None)
    arguments, rest = parser.parse_known_args()
    if {"-h", "--help"} & set(rest):
        print("Start with torchrun, e.g. torchrun --nproc_per_node 2 --no-python nnUNetv2_rmr_train_ddp 101 3d_fullres "
              "0 -tr nnUNetTrainerRMR\n-backend NAME: of torch.distributed (default nccl on cuda, gloo on cpu). "
              "The rest are nnUNetv2_train's, but for -num_gpus, which torchrun replaces:\n")
    elif arguments.num_gpus != 1:
        sys.exit(f"{parser.prog}: error: -num_gpus {arguments.num_gpus}: torchrun sets the number of processes "
                 "(--nnodes, --nproc_per_node)")
    sys.argv = [parser.prog, *rest, "-device", arguments.device]
    check_arguments("run/run_training.py", "run_training_entry")
    add_to_ext_trainer()

    from nnunetv2.run import run_training as nnunet
    from torch import distributed as dist

    from nnunetv2_rmr.training.distributed import join_processes, let_nnunet_train_on

    try:
        device = join_processes(arguments.device, arguments.backend)
    except (ValueError, NotImplementedError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    let_nnunet_train_on(device)
    nnunet.run_training_entry()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
