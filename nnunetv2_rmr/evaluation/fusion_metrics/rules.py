"""The fixed rules behind the numbers, in words: they are written into every output."""

from collections.abc import Sequence

from nnunetv2_rmr.evaluation.fusion_baselines import COPY, fuse
from nnunetv2_rmr.evaluation.fusion_metrics import contrast, edges, information, intensities, scores, similarity
from nnunetv2_rmr.evaluation.fusion_metrics.case_files import BODY, NO_MASK, Folders
from nnunetv2_rmr.fusion import body, gradient
from nnunetv2_rmr.settings import reference_channel

_MASKS = {BODY: "the body: voxels where any source is not zero, if at least a third of the voxels on the image's faces "
                "are zero in all sources; else voxels above Otsu's threshold in any source, largest connected part, "
                f"closed by {body.CLOSED} voxels, holes filled", NO_MASK: "none, every voxel counts"}

_NEAR, _FAR = contrast.RING_MM
_METRICS = {
    contrast.LESION_CONTRAST:
        f"per region (mean inside - mean in a ring of {_NEAR:g} to {_FAR:g} mm around it, in the body) / standard "
        "deviation in the body outside of all regions, of the image / of the source where its magnitude is largest; "
        "the smallest over regions; below 0: dark where that source is bright, or the reverse",
    **{f"smallest {name}": f"{text}, the smallest over sources" for name, text in {
        "own edges": f"Qabf of one source over its own edges: voxels where its gradient is in its strongest "
                     f"{1 - edges.STRONGEST:.0%} and that of every other source not above its median; if these are "
                     f"fewer than {edges.FEWEST_OWN} voxels, the smallest over the other sources one by one; NaN if "
                     "these are as few",
        "Qabf": "Qabf of one source", "VIF": "VIF of one source", "SSIM": "SSIM to one source",
        "MI": "I(S;F) of one source, bits"}.items()},
    "EN": "entropy of the fused image, bits",
    "SD": "standard deviation, intensities in 0..1",
    "SF": "root of the sum over axes of the mean squared first difference, neighbours inside the mask, per voxel step",
    "AG": "mean of the root of the mean over axes of the squared first difference, inside the mask, per voxel step",
    "MI": "sum over sources of I(S;F), bits",
    "Q_MI": "sum over sources of 2 I(S;F) / (H(S) + H(F))",
    "Q_NCIE": f"entropy of the eigenvalues of the matrix of sources and fused image, base {information.BINS}",
    "CC": "Pearson's r, mean over sources",
    "SCD": "r(F-B, A) + r(F-A, B), mean over all pairs of sources",
    "Qabf": f"parameter set {edges.PARAMETER_SET}: strength {edges.STRENGTH}, orientation {edges.ORIENTATION}, "
            f"L = {edges.WEIGHT_EXPONENT}; Sobel windows inside the mask; angle between gradients without sign",
    "VIF": f"pixel domain, 4 scales, windows {tuple(2 * r + 1 for r in similarity.VIF_RADII)} voxels, noise variance 2 "
           "for intensities in 0..255 (2/255^2 here), mean over sources",
    "SSIM": f"Gaussian window, sigma {similarity.SIGMA} voxels, {2 * similarity.RADIUS + 1} taps, K1 {similarity.K1}, "
            f"K2 {similarity.K2}, data range 1, mean over the mask, mean over sources",
    "MS-SSIM": f"5 scales, weights {similarity.SCALE_WEIGHTS}, negative scales count as 0, mean over sources",
    "PSNR": "10 log10(1/MSE) in dB inside the mask, mean over sources",
}

_BASELINES = {
    "gradient": "screened Poisson equation: gradients of all sources in units of their root mean square, per mm, signs "
                "as they are, weighted by their squared magnitude; coarse scales (Gaussian, "
                f"{gradient.COARSE_MM:g} mm, weight {gradient.COARSE_WEIGHT:g} per mm^2) of the reference modality and "
                f"of what another alone has brighter than {gradient.BRIGHT:g} standard deviations above its median",
    "average": "mean of the sources",
    "maximum": "largest of the sources",
    "laplacian": f"Laplacian pyramid, {fuse.PYRAMID_LEVELS} levels, strongest detail, average base (Burt & "
                 "Adelson 1983)",
    "wavelet": f"{fuse.WAVELET}, {fuse.WAVELET_LEVELS} levels, {fuse.WAVELET_MODE} border, strongest detail, average "
               "approximation (Li, Manjunath & Mitra 1995)",
    "guided": f"guided filter (Li, Kang & Hu 2013), radii {fuse.BASE_RADIUS}, {fuse.BASE_WEIGHT[0]}, "
              f"{fuse.DETAIL_WEIGHT[0]}, epsilon {fuse.BASE_WEIGHT[1]}, {fuse.DETAIL_WEIGHT[1]}",
}


def rules(folders: Folders, mode: str, methods: Sequence[str]) -> dict:
    """For the "rules" of the summary. methods: what is scored, by the names that tables have for it."""
    channels = list(folders.images.names)
    low, high = intensities.PERCENTILES
    dimensions = ("3D, the whole volume" if mode == "3d" else
                  "2D, mean over the axial slices with at least "
                  f"{scores.MIN_SLICE_FRACTION:.0%} of the fullest slice's voxels in the body; lesions in 3D")
    measured = [contrast.LESION_CONTRAST] * (folders.labels is not None) + list(scores.METRICS)
    described = {name: f"{_BASELINES[name]}; of the mapped sources, then mapped like any fused image"
                 for name in methods if name in _BASELINES}
    described |= {name: "the source as it is" for name in methods if name.startswith(COPY)}
    return {
        "mode": f"{mode}: {dimensions}",
        "mask": _MASKS.get(folders.mask, f"files in {folders.mask}, voxels > 0"),
        "intensity_map": f"one linear map per image and volume, also of the fused image: its {low} and {high} "
                         "percentile inside the mask to 0 and 1, clipped. So gain and offset of an image do not "
                         "count, in PSNR and SSIM neither",
        "windows": "local statistics see only the part of a window inside the mask; every voxel of the mask counts",
        "histograms": f"{information.BINS} bins of equal width over 0..1, logarithms to base 2",
        "units": "filters and differences count voxels, not mm, but for the contrast of lesions and the baseline "
                 "gradient",
        "sources": channels,
        "reference_modality": channels[reference_channel(None, channels)],
        "copy": f"correlation with a source above {edges.CORRELATION:g}; or Qabf of that source of at least "
                f"{edges.SHOWS_ITSELF:g}, and the own edges of every other source, where its gradient is below its "
                f"median, below {edges.OWN_EDGES:g}",
        "not_finite": "null stands for NaN (undefined) and for infinite; means are over the n finite values",
        "metrics": {name: _METRICS[name] for name in measured},
        "baselines": described,
        "dataset_json": folders.dataset_json and str(folders.dataset_json),
        "images_without_fused_image": sorted({*folders.images.cases} - {*folders.cases}),
    }
