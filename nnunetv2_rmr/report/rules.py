"""What the numbers of a report mean, and what they do not."""

from __future__ import annotations

from nnunetv2_rmr.report.data import Benchmark
from nnunetv2_rmr.report.html import Markup, tag
from nnunetv2_rmr.report.verdict import FEW, fewest_cases, percent


def rules(benchmark: Benchmark) -> Markup:
    """The list at the page's end."""
    s, level = benchmark.summary, percent(benchmark.confidence)
    cases = s.get("cases", [])
    entries = [
        f"Test cases: {len(cases)}. The same corrupted images were given to every model.",
        f"Intervals and bands: {level}, bootstrap over cases ({s.get('n_bootstrap', '?')} resamples, seed "
        f"{s.get('seed', '?')}). Differences are paired: model minus reference on the same image, averaged over cases, "
        "then over conditions.",
        "'Better' or 'worse' is said by a test of the paired difference over cases (two-sided, sign-flip): p is how "
        "often a difference as large or larger comes out if each case's sign is left to chance, and "
        f"{percent(1 - benchmark.confidence)} or less is called a difference. Intervals do not decide: with few cases "
        "they are too narrow, and one may leave out 0 though no difference is shown.",
        f"With fewer than {fewest_cases(benchmark.confidence)} cases even unanimity is no evidence at this level. "
        "'No difference shown' does not mean that there is none. Nothing is corrected for the number of comparisons: "
        "of twenty corruptions without any effect one may show a difference at 95 %.",
        "The intervals speak of the choice of test cases, not of another training: each model is one training run per "
        "fold, and another seed changes its numbers, too.",
        "Seen: the corruption's kind is in the default training of nnunetv2-rmr's trainers, though not necessarily in "
        "that of the models compared here. Unseen, or held out: it is not. Missing: the modality's image is filled "
        "with zeros.",
        "Empty label and empty prediction: no score (NaN), left out of the means, which is nnU-Net's rule; n is the "
        "number of cases with a score. A dash stands for: no value.",
        "mCE: mean over corruptions of the error 1 − Dice, summed over severities and divided by that of the "
        "reference; below 1 is better than the reference. Relative mCE: the same for the increase over clean images.",
        "HD95: 95th percentile of the surface distance in mm, lower is better. NSD: part of the surface within the "
        "tolerance, higher is better.",
        "Fusion: own edges and copies are measured in the body, contrast of lesions with the expert's labels, without "
        "voxels of an ignore label. Most fusion metrics are best for a copy of one modality; these are not. gradient: "
        "classical fusion of the same images.",
        "Restoration: PSNR and SSIM against the clean target of the fusion (the gradient fusion of the clean scans; "
        "of a model that fuses by itself, the published form, their reference modality), inside the body, means over "
        "cases and severities: of the fused image of the corrupted scans, and of the target made of these, which is "
        "what a fusion without restoration gives. Unchanged images (infinite PSNR) are left out.",
        "Viewer: 8 bits per voxel between the 0.1 and the 99.9 percentile of the image; values are exact to 1/255 of "
        "this range, and shown as ≥ where clipped. Positions are NIfTI's (mm, to the right, to the front, up).",
        *(f"Note: {note}" for note in s.get("notes") or []),
        "Versions: " + (", ".join(f"{k} {v}" for k, v in (s.get("versions") or {}).items()) or "not recorded") + ".",
    ]
    for f in benchmark.failed[:10]:
        entries.append(f"Failed: {f['model']}, {f['case']}, {f['corruption']}, severity {f['severity']}, modality "
                       f"{f['modality']}: {f['error']}")
    if len(benchmark.failed) > 10:
        entries.append(f"Failed: {len(benchmark.failed) - 10} more, see records/.")
    if len(cases) < FEW:
        entries.insert(1, f"Fewer than {FEW} cases: read every interval as rough.")
    if any("p" not in d for d in s.get("differences", [])):
        entries.insert(0, "An older version made this summary, without p: no difference is called shown. The same "
                          "nnUNetv2_rmr_benchmark command again adds the test.")
    return tag("ul", *(tag("li", entry) for entry in entries))
