"""The demo's page: one HTML file with everything in it."""

import platform
from base64 import b64encode
from html import escape
from importlib.metadata import version
from pathlib import Path

import numpy as np

from nnunetv2_rmr import __version__
from nnunetv2_rmr.datasets.phantom import CHANNELS
from nnunetv2_rmr.demo.degraded import DEGRADATIONS
from nnunetv2_rmr.demo.fusion import gradient_fusion, load, load_fused, load_images
from nnunetv2_rmr.demo.job import CONFIGURATION, DATASET_ID, FOLD, TRAINERS
from nnunetv2_rmr.demo.pictures import COLOURS, LINES, curves, image_row, window
from nnunetv2_rmr.demo.results import CONDITIONS, DemoResults
from nnunetv2_rmr.evaluation.fusion_metrics.copies import OWN_EDGES
from nnunetv2_rmr.evaluation.fusion_metrics.edges import COMPLETE
from nnunetv2_rmr.evaluation.fusion_metrics.verdict import copy_sentence, verdict
from nnunetv2_rmr.files.atomic import replacing

NAMES = {"nnUNetTrainer": "nnU-Net", "nnUNetTrainerRMR": "RMR"}

CAVEATS = ("The training is far too short, the brains are simulated, the test cases are few, and this was one run with "
           "one seed. The numbers show that everything works; they say nothing about which method is better.")

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1250px; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 1.8em } img { max-width: 100% }
table { border-collapse: collapse } td, th { padding: .3em .8em; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } .note { background: #fff6dd; padding: .7em 1em; border-radius: 6px }
pre { background: #f4f4f4; padding: .8em; overflow-x: auto } small { color: #666 }
"""


def mean_and_spread(values: list[float]) -> str:
    """`mean ± standard deviation` of the values that are numbers, and how many these are if some are not."""
    numbers = [v for v in values if np.isfinite(v)]
    if not numbers:
        return "–"
    spread = f" ± {np.std(numbers, ddof=1):.2f}" if len(numbers) > 1 else ""
    missing = f" (n = {len(numbers)})" if len(numbers) < len(values) else ""
    return f"{np.mean(numbers):.2f}{spread}{missing}"


def _decibels(values: list[float]) -> str:
    return mean_and_spread(values) + " dB" if np.isfinite(values).any() else "–"


def _condition(name: str) -> str:
    if name == "clean":
        return "clean"
    kind = DEGRADATIONS[name]
    return f"{name} ({'in' if kind.trained else 'not in'} RMR's training): {kind.text}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    def row(tag: str, cells: list[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(c)}</{tag}>" for c in cells) + "</tr>"

    return "<table>" + row("th", header) + "".join(row("td", cells) for cells in rows) + "</table>"


def summary_table(results: DemoResults) -> tuple[list[str], list[list[str]]]:
    """Header and rows: Dice of both models on clean and degraded cases, and PSNR of both fusions."""
    header = ["test images", *(f"Dice, {NAMES[t]}" for t in TRAINERS), "PSNR, gradient fusion",
              "PSNR, RMR's fused image"]
    rows = []
    for condition in CONDITIONS:
        cells = [_condition(condition)]
        cells += [mean_and_spread(list(results.dice[t][condition].values())) for t in TRAINERS]
        cells += [_decibels([case[key] for case in results.psnr[condition].values()]) for key in ("gradient", "fused")]
        rows.append(cells)
    return header, rows


def fusion_verdicts(results: DemoResults) -> str:
    """HTML: what of each modality RMR's fused images and gradient fusion show, a copy of one modality in bold."""
    text = ""
    for name in ("RMR", "gradient"):
        cases = [of_case[name] for of_case in results.fusion.values()]
        said = escape(verdict(name, cases))
        if any(case["copy_of"] for case in cases):
            copy = escape(copy_sentence(cases))
            text += f'<p class="note">{said.removesuffix(copy)}<b>{copy}</b></p>'
        else:
            text += f"<p>{said}</p>"
    return text


def fusion_answer(results: DemoResults) -> str:
    """One sentence. Not to be a copy is not enough for a yes: it takes half of every scan's own edges."""
    cases = [of_case["RMR"] for of_case in results.fusion.values()]
    if copies := sum(case["copy_of"] is not None for case in cases):
        return f"No: in {copies} of {len(cases)} test cases it is a copy of one scan."
    own = {channel: mean for channel in CHANNELS
           if np.isfinite(mean := _mean([case["own_edges"][channel] for case in cases]))}
    least = min(own.values(), default=0)
    answer = "Hardly" if least < OWN_EDGES else "In part" if least < COMPLETE / 2 else "Yes"
    shown = ", ".join(f"{channel} {mean:.2f}" for channel, mean in own.items()) or "too few to be measured"
    return (f"{answer}: it is no copy of one scan, and of the edges that each scan has alone it shows {shown} "
            f"({COMPLETE:.2f} is all of them).")


def _mean(values: list[float]) -> float:
    numbers = [v for v in values if np.isfinite(v)]
    return float(np.mean(numbers)) if numbers else np.nan


def _per_case_table(results: DemoResults) -> str:
    columns = [(condition, trainer) for condition in CONDITIONS for trainer in TRAINERS]
    return _table(["case", *(f"{condition}, {NAMES[trainer]}" for condition, trainer in columns)],
                  [[case, *(f"{results.dice[trainer][condition][case]:.2f}" for condition, trainer in columns)]
                   for case in results.cases])


def _cut(results: DemoResults, case: str, flair: np.ndarray) -> tuple:
    """Index of the axial slice with most lesion, cropped to the brain."""
    label = load(results.labels / f"{case}.nii.gz") > 0
    return *(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(flair.max(2))), int(label.sum((0, 1)).argmax())


def _fusion_picture(results: DemoResults) -> bytes:
    case = max(results.cases, key=lambda c: int((load(results.labels / f"{c}.nii.gz") > 0).sum()))
    images = load_images(results, "clean", case)
    fused, where = load_fused(results, "clean", case), _cut(results, case, images["FLAIR"])
    white = window(images["FLAIR"])[1]
    return image_row({**{name: (image[where], window(image)) for name, image in images.items()},
                      "fused (RMR)": (fused[where], (0, 0.7 * float(fused[where].max()))),
                      "fused - FLAIR": ((fused - images["FLAIR"])[where], (-white / 2, white / 2))}, {}, inches=3.0)


def _case_picture(results: DemoResults, case: str, kind: str) -> bytes:
    label = load(results.labels / f"{case}.nii.gz") > 0
    clean = load_images(results, "clean", case)
    where = _cut(results, case, clean["FLAIR"])
    windows = {channel: window(values) for channel, values in clean.items()}
    flair, degraded = windows["FLAIR"], load_images(results, kind, case)
    fused = {c: load_fused(results, c, case) for c in ("clean", kind)}
    of_fused = window(fused["clean"])
    spacing = (results.options.spacing_mm,) * 3

    def masks(condition: str) -> dict[str, np.ndarray]:
        found = {t: load(results.predictions(t, condition) / f"{case}.nii.gz") > 0 for t in TRAINERS}
        return {name: mask[where] for name, mask in {"label": label, **found}.items()}

    return image_row(
        {**{channel: (values[where], windows[channel]) for channel, values in clean.items()},
         "fused, from clean": (fused["clean"][where], of_fused),
         f"FLAIR, {kind}": (degraded["FLAIR"][where], flair),
         f"gradient, {kind}": (gradient_fusion(degraded, spacing)[where], of_fused),
         f"fused, from {kind}": (fused[kind][where], of_fused)},
        {"lesions, clean": (clean["FLAIR"][where], flair, masks("clean")),
         f"lesions, {kind}": (degraded["FLAIR"][where], flair, masks(kind))})


def _embedded(png: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{b64encode(png).decode()}">'


def _to_go_on(results: DemoResults) -> str:
    options = results.options
    commands = ["# your own data", "nnUNetv2_rmr_import --help", "",
                "# this demo, with five times the training and everything kept",
                f"nnUNetv2_rmr_demo --out demo_long --epochs {5 * options.epochs} --keep"]
    if options.keep:
        out = options.out.resolve()
        commands += ["", "# this data set, by nnU-Net's commands", *(
            f'export {name}="{out / name}"' for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")),
            'export nnUNet_extTrainer="$(nnUNetv2_rmr_trainers)"',
            f"nnUNetv2_train {DATASET_ID} {CONFIGURATION} {FOLD} -tr nnUNetTrainerRMR_5epochs -device {options.device}",
            f"# ({CONFIGURATION}: small patches, small network; nnUNetTrainerRMR trains 1000 epochs, days on a CPU)"]
    return "\n".join(commands)


def write_page(results: DemoResults, filename: Path) -> None:
    """Write the page; it appears under its name only when it is complete."""
    options = results.options
    kinds = list(DEGRADATIONS)
    rows = ""
    for i, case in enumerate(results.cases):
        kind = kinds[i % len(kinds)]
        rows += f"<h3>{escape(case)}, with {escape(kind)}</h3>" + _embedded(_case_picture(results, case, kind), case)
    logged = {"training loss, segmentation": "train_losses", "validation loss, segmentation": "val_losses",
              "validation pseudo Dice (patches)": "pseudo_dice"}
    plots = curves({title: {t: getattr(results.trainings[t], key) for t in TRAINERS}
                    for title, key in logged.items()}, NAMES)
    iterations = options.epochs * options.iterations
    legend = ", ".join(f'<b style="color:{colour}">{NAMES.get(name, name)}</b>'
                       + (" (dashed)" if LINES[name] == "dashed" else "") for name, colour in COLOURS.items())
    minutes = sum(results.seconds.values()) / 60
    versions = ", ".join([f"nnunetv2-rmr {__version__}", *(f"{p} {version(p)}" for p in ("nnunetv2", "torch"))])
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>nnunetv2-rmr demo</title><style>{_STYLE}</style></head><body>
<h1>nnunetv2-rmr: demo</h1>
<p>nnU-Net and RMR were trained for {options.epochs} epochs of {options.iterations} iterations each, from the same
start, on {options.cases} simulated brains with white-matter lesions (T1ce, T2, FLAIR; {options.spacing_mm:g} mm
voxels), a fifth of them kept for nnU-Net's validation. Both segmented {options.test_cases} other brains, clean and with
all three images degraded; RMR also fused the three images of each into one.</p>
<p class="note"><b>{escape(CAVEATS)}</b></p>
<h2>Is the fused image a fusion?</h2>
<p><b>{escape(fusion_answer(results))}</b> For your own scans <code>nnUNetv2_rmr_fuse -i imagesTs -o OUT</code> makes
such an image (classical gradient fusion) without any training; RMR makes it of the scans that it has restored.</p>
{_embedded(_fusion_picture(results), "three scans and their fused image")}
<p><small>The clean test case with most lesion, in its axial slice with most of it. FLAIR shows all lesions alike; some
take up contrast agent, as active ones do, and only T1ce shows which. In the fused image these are the brightest. Right,
the difference to FLAIR, grey where both are equal. A difference is not always a gain: where scans contradict each other
(fluid is bright in T2 and dark in FLAIR), their edges cancel. So the ventricles fade, and of T2, whose own edges are
mostly those of fluid, little is left.</small></p>
<p>Measured on all clean test cases; a scan's own edges are those that no other one has (–: too few to be measured).
Gradient is gradient fusion of the same images.</p>
{fusion_verdicts(results)}
<h2>Results, n = {options.test_cases} test cases, mean ± standard deviation over them</h2>
{_table(*summary_table(results))}
<p><small>Dice of the lesions, 1 is perfect. PSNR within the brain, always against the gradient fusion of the clean
scans, which RMR's fused image aims at: of the gradient fusion of the degraded scans, and of RMR's fused image of these
(of the clean ones in the first row). Where both are about equal, nothing was restored.</small></p>
<details><summary>Dice of every case</summary>{_per_case_table(results)}</details>
<h2>Pictures</h2>
<p>The axial slice with most lesion (some lesions are faint, as in patients); T1ce, T2 and FLAIR as they were, then one
of the degradations, which hit all three. The fusions share one grey window. Outlines: {legend}.</p>
{rows}
<h2>Training</h2>
{_embedded(plots, "losses per epoch")}
<p><small>{iterations} iterations each, batches of 2 patches of {" × ".join(map(str, options.patch_size))} voxels, fold
{FOLD}. Both began with the same weights and saw the same patches, but mirrored in other ways, and RMR's are degraded
further than nnU-Net's augmentation does. Pseudo Dice is that of validation patches, each of which may show a lesion;
Dice above is that of whole test brains, where false positives count.</small></p>
<h2>Time</h2>
{_table(["step", "seconds"], [[step, f"{seconds:.0f}"] for step, seconds in results.seconds.items()])}
<p><small>Wall time: whatever else runs on the machine slows it down. {minutes:.1f} minutes in all on
{escape(options.device)} ({escape(platform.machine())}, Python {platform.python_version()};
{escape(versions)}); seed {options.seed}.</small></p>
<h2>To go on</h2>
<pre>{escape(_to_go_on(results))}</pre>
</body></html>
"""
    with replacing(filename) as temporary:
        Path(temporary).write_text(page, encoding="utf-8")
