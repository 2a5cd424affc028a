"""What a benchmark left in its folder, read once and asked by name."""

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nnunetv2_rmr.evaluation.benchmark.statistics import finished_by_all
from nnunetv2_rmr.files.refused import BadCaseError

GROUPS = {"clean": "clean images", "seen": "trained kinds of degradation", "unseen": "never trained kinds",
          "missing": "images without one modality"}
METRICS = {"Dice": "Dice", "HD95": "HD95 (mm)", "NSD": "NSD"}
KEY = ("model", "corruption", "severity", "modality", "label", "metric")  # of scores and differences
MEAN = "mean"  # over labels, or over severities
ALL = "all"  # modalities


@dataclass(frozen=True)
class Score:
    """Mean over n cases with the limits of its interval; NaN where there is none."""

    mean: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0


@dataclass(frozen=True)
class Difference:
    """Model minus reference, paired over n cases, and in how many of them the model was better or worse.

    p: of the sign-flip test; NaN in summaries of versions that made none.
    """

    difference: float
    low: float
    high: float
    n: int
    better: int
    worse: int
    p: float = math.nan


class Benchmark:
    """results.csv, cases.csv, summary.json and examples/INDEX.json of a benchmark's folder.

    Of the results without those that some model failed on, as in the summary. `models`: the reference first; `others`:
    those compared with it. `groups`, `modalities`: what was measured of GROUPS and of "all" and single modalities.

    Raises BadCaseError if one of the first three is missing, or one of them can not be read.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.summary = self._json("summary.json")
        self.results = finished_by_all(self._csv("results.csv", ["model", "corruption", "seen", "severity", "modality",
                                                                 "case", "label", *METRICS]))
        self.cases = self._csv("cases.csv", ["model", "corruption", "severity", "modality", "case", "fused_PSNR",
                                             "degraded_PSNR", "fused_SSIM", "degraded_SSIM", "image_difference"])
        self.examples = self._json("examples/INDEX.json") if (self.folder / "examples/INDEX.json").is_file() else []
        try:
            self._read_summary(self.summary)
        except KeyError as missing:
            raise BadCaseError(f"{self.folder / 'summary.json'}: has no entry {missing}") from None
        measured = set(self.results["seen"])
        self.groups = [group for group in GROUPS if group in measured]
        degraded = set(self.results["modality"][self.results["seen"].isin(["seen", "unseen"])])
        self.modalities = [m for m in (ALL, *self.channels) if m in degraded]
        # (modality, kind, severity) -> mean over cases of how much the images changed
        changes = self.cases.groupby(["modality", "corruption", "severity"])["image_difference"].mean()
        self.changes: dict[tuple[str, str, int], float] = changes.dropna().to_dict()

    def _read_summary(self, summary: dict) -> None:
        self.reference: str = summary["reference"]
        self.models = sorted(summary["models"], key=lambda name: name != self.reference)
        self.others = [name for name in self.models if name != self.reference]
        self.degradations: dict[str, dict] = summary["corruptions"]
        self.labels: list[str] = [MEAN, *summary["labels"]]
        self.label_values = {int(value): name for value, name in summary["label_values"].items()}
        self.channels: list[str] = summary["modalities"]
        self.test_cases: list[str] = summary["cases"]
        self.confidence: float = summary["confidence"]
        # Of predictions that could not be made: model, case, condition, error
        self.failed: list[dict] = summary.get("failed", [])
        self.failures = Counter(f["model"] for f in self.failed)
        # Of each model that fuses, what its fused images are; empty, too, in summaries of older versions
        self.fusion: dict[str, dict] = summary.get("fusion", {}).get("models", {})
        self.costs = {cost["model"]: cost for cost in summary["cost"]}
        self._scores = {_key(row): row for row in summary["scores"]}
        self._differences = {_key(row): row for row in summary["differences"]}

    def _json(self, name: str):
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BadCaseError(f"{self.folder / name}: there is no such file; is the benchmark finished?") from None
        except (OSError, ValueError) as error:
            raise BadCaseError(f"{self.folder / name}: can not be read ({error})") from None

    def _csv(self, name: str, columns: list[str]) -> pd.DataFrame:
        texts = dict.fromkeys(("model", "corruption", "seen", "modality", "case", "label"), str)
        try:  # a case or model may be called "NA": only an empty cell is NaN
            table = pd.read_csv(self.folder / name, dtype=texts, keep_default_na=False, na_values=[""])
        except (OSError, ValueError) as error:
            raise BadCaseError(f"{self.folder / name}: can not be read ({error})") from None
        if missing := [c for c in columns if c not in table]:
            raise BadCaseError(f"{self.folder / name}: has no column {', '.join(missing)}")
        return table

    def mean_errors(self, label: str) -> dict[str, dict]:
        """Model -> its mCE, rmCE, mCE_seen and mCE_unseen."""
        return {e["model"]: e for e in self.summary["mean_corruption_errors"] if e["label"] == label}

    def score(self, model: str, kind: str, label: str = MEAN, metric: str = "Dice",
              severity: int | str = MEAN, modality: str = ALL) -> Score:
        """Mean of a kind of degradation or of one of GROUPS. All NaN if it was not measured."""
        row = _find(self._scores, model, kind, severity, modality, label, metric)
        if row is None:
            return Score(math.nan)
        return Score(or_nan(row["mean"]), or_nan(row["low"]), or_nan(row["high"]), int(row["n"] or 0))

    def difference(self, model: str, kind: str, label: str = MEAN, metric: str = "Dice",
                   severity: int | str = MEAN, modality: str = ALL) -> Difference | None:
        """Of `model` to the reference; None if it was not measured."""
        row = _find(self._differences, model, kind, severity, modality, label, metric)
        if row is None or row["difference"] is None:
            return None
        return Difference(*(or_nan(row[key]) for key in ("difference", "low", "high")),
                          *(int(row[key] or 0) for key in ("n", "better", "worse")), or_nan(row.get("p")))

    def case_means(self, label: str = MEAN) -> pd.DataFrame:
        """Columns model, seen, case and Dice: mean of each case over the conditions of a group, without NaN."""
        rows = self.results if label == MEAN else self.results[self.results["label"] == label]
        conditions = ["model", "seen", "case", "corruption", "severity", "modality"]
        per_condition = rows.groupby(conditions, as_index=False)["Dice"].mean()
        return per_condition.groupby(["model", "seen", "case"], as_index=False)["Dice"].mean()


def or_nan(value: float | None) -> float:
    """NaN for what JSON has as null."""
    return math.nan if value is None else float(value)


def _key(row: dict) -> tuple:
    return tuple(str(row[k]) for k in KEY)


def _find(index: dict[tuple, dict], model: str, kind: str, severity: int | str, modality: str, label: str,
          metric: str) -> dict | None:
    # these two have one severity only, of which the mean may not be listed
    severities = {"clean": (severity, MEAN, 0), "missing": (severity, MEAN, 1)}.get(kind, (severity,))
    # groups are means over whatever modalities were degraded; so is a kind that was never applied to all at once
    modalities = (ALL, MEAN) if modality == ALL else (modality,)
    found = (index.get((model, kind, str(s), m, label, metric)) for m in modalities for s in severities)
    return next((row for row in found if row is not None), None)
