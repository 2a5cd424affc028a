"""How large every pass of the network finds the labels: mirrored in different ways, or of different folds."""

from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise

import torch


def labels_in(logits: torch.Tensor, regions: bool) -> torch.Tensor:
    """Boolean (labels, *spatial) of logits (heads, *spatial): where each label but the background is the likeliest, or
    where each region is likelier than not."""
    if regions:
        return logits > 0
    numbers = torch.arange(1, len(logits), device=logits.device)
    # not argmax, which on CPUs takes ten times as long
    return logits.max(0).indices == numbers.reshape(-1, *[1] * (logits.ndim - 1))


class LabelSizes:
    """Voxels of every label in each mirrored pass through one case, counted tile by tile.

    A voxel is counted in one tile only, that whose centre is nearest. So the passes need not be put together to whole
    volumes, which would take several times the memory of a prediction.

    tiles: nnU-Net's slicers. inside: slices of the image in what they tile, which may be padded. mirror_axes: spatial
    axes, none for a single pass. regions: as in `labels_in`.
    """

    def __init__(self, tiles: Sequence[tuple], inside: Sequence[slice], mirror_axes: Sequence[int], regions: bool):
        # a 2D configuration's tiles have a number of a slice for their first axis
        axes = [axis for axis in range(-len(inside), 0) if isinstance(tiles[0][axis], slice)]
        self._own = {axis: _own_parts(((tile[axis].start, tile[axis].stop) for tile in tiles), inside[axis])
                     for axis in axes}
        # nnU-Net's order, after the pass that is not mirrored; its axes are counted from the first spatial one
        self._mirrored = [[axis - len(axes) for axis in mirrored] for n in range(len(mirror_axes) + 1)
                          for mirrored in combinations(mirror_axes, n)]
        self._regions = regions
        self._sizes: list = [0] * len(self._mirrored)

    def add(self, tile: tuple, number: int, logits: torch.Tensor) -> None:
        """logits: (1, heads, *patch_size), what pass `number` has made of this tile, mirrored as it was."""
        own = {axis: parts[tile[axis].start] for axis, parts in self._own.items()}
        for axis in self._mirrored[number]:
            length = logits.shape[axis]
            own[axis] = slice(length - own[axis].stop, length - own[axis].start)
        where: tuple = (0, slice(None), *own.values())
        there = labels_in(logits[where], self._regions)
        self._sizes[number] = self._sizes[number] + there.flatten(1).sum(1)

    def result(self) -> torch.Tensor:
        """(passes, labels), on the CPU."""
        return torch.stack(self._sizes).cpu()


def _own_parts(places: Iterable[tuple[int, int]], inside: slice) -> dict[int, slice]:
    """places: first and last voxel of every tile along an axis. By the first, the part of the tile that is nearer to
    its centre than to any other's, in its own voxels."""
    ordered = sorted({*places})
    borders = [(stop + start) // 2 for (_, stop), (start, _) in pairwise(ordered)]
    return {start: slice(first - start, last - start) for (start, _), first, last
            in zip(ordered, [inside.start, *borders], [*borders, inside.stop])}
