"""Gradient loss and SSIM: separable filters against dense 3D convolutions, forward and backward.

    python benchmarks/loss_filters.py [--shape 1 1 32 128 128] [--device cpu]

Both sides compute the same numbers; the largest difference of values and gradients is printed, too.
"""

import argparse

import torch
from alternate import alternate, summary, table
from report import add_json_argument, print_machine, write_json

from nnunetv2_rmr.losses.filters import sobel_magnitude
from nnunetv2_rmr.losses.ssim import RADIUS, SIGMA, ssim

RANGE = 6.0


def dense_sobel_magnitude(x: torch.Tensor) -> torch.Tensor:
    smooth, derivative = torch.tensor([0.25, 0.5, 0.25]), torch.tensor([-0.5, 0.0, 0.5])
    kernels = torch.stack([torch.einsum("i,j,k->ijk", *(derivative if i == axis else smooth for i in range(3)))
                           for axis in range(3)])[:, None].to(x)
    return torch.nn.functional.conv3d(x, kernels).abs().sum(1, keepdim=True)


def dense_ssim(x: torch.Tensor, y: torch.Tensor, data_range: float) -> torch.Tensor:
    positions = torch.arange(-RADIUS, RADIUS + 1)
    window = torch.exp(-positions**2 / (2 * SIGMA**2))
    window = window / window.sum()
    kernel = torch.einsum("i,j,k->ijk", window, window, window)[None, None].to(x)

    def mean(image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv3d(image, kernel)

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y, cov = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2, mean(x * y) - mean_x * mean_y
    return ((2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1) * (2 * cov + c2) / (var_x + var_y + c2)).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=5, default=[1, 1, 32, 128, 128])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    add_json_argument(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(args.shape, generator=generator).to(args.device) for _ in range(2))
    print_machine(args)

    def step(loss):
        image = x.clone().requires_grad_()
        value = loss(image)
        value.backward()
        if args.device == "cuda":
            torch.cuda.synchronize()
        return value.detach(), image.grad

    pairs = {"gradient loss": (lambda image: (sobel_magnitude(image) - sobel_magnitude(y)).abs().mean(),
                               lambda image: (dense_sobel_magnitude(image) - dense_sobel_magnitude(y)).abs().mean()),
             "SSIM": (lambda image: ssim(image, y, RANGE).mean(), lambda image: dense_ssim(image, y, RANGE))}
    rows = []
    for name, losses in pairs.items():
        (ours, our_grad), (dense, dense_grad) = (step(loss) for loss in losses)
        taken = alternate({"separable": lambda pair=losses: step(pair[0]), "dense": lambda pair=losses: step(pair[1])},
                          args.repeats)
        print(f"{name}: values differ by {(ours - dense).abs().item():.1e}, gradients by "
              f"{((our_grad - dense_grad).abs().max() / dense_grad.abs().max()).item():.1e} of the largest\n")
        found = summary(taken, "separable")
        print(table(found), "\n")
        rows += [{"loss": name} | row for row in found]
    write_json(args, rows)


if __name__ == "__main__":
    main()
