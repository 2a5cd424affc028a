"""Mean squared error and total variation of a residual, which computes its gradient at once."""

import torch
from torch.autograd.function import once_differentiable


class _ResidualLoss(torch.autograd.Function):
    """Keeps one tensor for the backward pass, the gradient.

    Written with operations of autograd, the loss on features keeps about 512 bytes per voxel (2 modalities with 16
    features) until the backward pass, as much as a U-Net's first stage.
    """

    @staticmethod
    def forward(ctx, x, target, spatial_dims, mse_weight, tv_weight, tv_norm, scale):
        leading = x.ndim - spatial_dims
        axes = [a for a in range(leading, x.ndim) if x.shape[a] > 1]
        ctx.size = x.numel()
        # Divided neither by the number of values nor, a second time, by the scale: so its numbers are of the size of
        # the residual's, and fit float16.
        gradient = torch.empty_like(x)
        loss = torch.zeros((), dtype=torch.float32 if x.dtype == torch.float16 else x.dtype, device=x.device)
        # in parts, so that what is needed in between is small
        for part in range(x.shape[0]):
            residual = (x[part].to(loss.dtype) - target[part].to(loss.dtype)) / scale
            loss += mse_weight * residual.square().sum()
            slope = residual * (2 * mse_weight)
            for axis in axes if tv_weight > 0 else ():
                # as many values as there are differences, so that every axis' mean counts the same
                weight = tv_weight * x.shape[axis] / (x.shape[axis] - 1)
                difference = residual.diff(dim=axis - 1)
                if tv_norm == "l2":
                    loss += weight * difference.square().sum()
                    difference *= 2 * weight
                else:
                    weight /= len(axes)
                    loss += weight * difference.abs().sum()
                    difference = difference.sign_().mul_(weight)
                n = x.shape[axis] - 1
                slope.narrow(axis - 1, 1, n).add_(difference)
                slope.narrow(axis - 1, 0, n).sub_(difference)
            gradient[part] = slope
        ctx.save_for_backward(gradient, torch.as_tensor(scale, dtype=loss.dtype, device=x.device))
        return loss / ctx.size

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        gradient, scale = ctx.saved_tensors
        slope = gradient * (grad / ctx.size / scale).to(gradient.dtype)
        return (slope, -slope if ctx.needs_input_grad[1] else None, *[None] * 5)


def residual_loss(x: torch.Tensor, target: torch.Tensor, spatial_dims: int, mse_weight: float, tv_weight: float,
                  tv_norm: str = "l1", scale: torch.Tensor | float = 1.0) -> torch.Tensor:
    """mse_weight * MSE + tv_weight * TV of the residual (x - target) / scale, a scalar.

    x, target: of one shape, of which the last `spatial_dims` axes are spatial, e.g. (B, M, F, D, H, W). Both
    can be differentiated. Float16 is computed in float32.
    tv_norm, of the differences between neighbours: "l1", mean absolute difference, averaged over the axes; "l2", mean
    squared difference, summed over the axes, which is what RMR's authors compute.
    """
    return _ResidualLoss.apply(x, target, spatial_dims, mse_weight, tv_weight, tv_norm, scale)
