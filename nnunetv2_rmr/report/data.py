"""What a benchmark left in its folder, read once and asked by name."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from nnunetv2_rmr.evaluation.benchmark.statistics import finished_by_all

GROUPS = {"clean": "clean images", "seen": "corruptions RMR trains on", "unseen": "held-out corruptions",
          "missing": "images without one modality"}
METRICS = {"Dice": "Dice", "HD95": "HD95 (mm)", "NSD": "NSD"}
MEAN = "mean"  # over labels, or over severities
ALL = "all"  # modalities


class ReportRefused(ValueError):
    """A benchmark's folder can not be reported. The message names the file."""


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


def number(value) -> float:
    """NaN for what JSON has as null."""
    return math.nan if value is None else float(value)


class Benchmark:
    """results.csv, cases.csv, summary.json and examples/INDEX.json of a benchmark's folder.

    Of the results without those that some model failed on, as in the summary.

    Raises ReportRefused if one of the first three is missing, or one of them can not be read.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.summary = self._json("summary.json")
        self.results = finished_by_all(self._csv("results.csv", ["model", "corruption", "seen", "severity", "modality",
                                                                 "case", "label", *METRICS]))
        self.cases = self._csv("cases.csv", ["model", "corruption", "severity", "modality", "case"])
        examples = self.folder / "examples" / "INDEX.json"
        self.examples = self._json("examples/INDEX.json") if examples.is_file() else []
        try:
            self.models = sorted(self.summary["models"], key=lambda name: name != self.summary["reference"])
            self.corruptions = dict(self.summary["corruptions"])
            self.labels = [MEAN, *self.summary["labels"]]
        except KeyError as missing:
            raise ReportRefused(f"{self.folder / 'summary.json'}: has no entry {missing}") from None
        if not self.models:
            raise ReportRefused(f"{self.folder / 'summary.json'}: names no model")

    def _json(self, name: str):
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ReportRefused(f"{self.folder / name}: there is no such file; is the benchmark finished?") from None
        except (OSError, ValueError) as error:
            raise ReportRefused(f"{self.folder / name}: can not be read ({error})") from None

    def _csv(self, name: str, columns: list[str]) -> pd.DataFrame:
        texts = dict.fromkeys(("model", "corruption", "seen", "modality", "case", "label"), str)
        try:  # a case or model may be called "NA": only an empty cell is NaN
            table = pd.read_csv(self.folder / name, dtype=texts, keep_default_na=False, na_values=[""])
        except (OSError, ValueError) as error:
            raise ReportRefused(f"{self.folder / name}: can not be read ({error})") from None
        if missing := [c for c in columns if c not in table]:
            raise ReportRefused(f"{self.folder / name}: has no column {', '.join(missing)}")
        return table

    @property
    def reference(self) -> str:
        return self.summary["reference"]

    @property
    def others(self) -> list[str]:
        """Models compared with the reference."""
        return [name for name in self.models if name != self.reference]

    @property
    def fusing(self) -> list[str]:
        """Models that have fused images. Older summaries do not say; then those whose restoration was measured."""
        if "fusion" in self.summary:
            return [name for name in self.models if name in self.summary["fusion"]["models"]]
        if "fused_PSNR" not in self.cases:
            return []
        measured = set(self.cases["model"][self.cases["fused_PSNR"].notna()])
        return [name for name in self.models if name in measured]

    @property
    def failed(self) -> list[dict]:
        """Predictions that could not be made: model, case, condition, error."""
        return self.summary.get("failed", [])

    @property
    def confidence(self) -> float:
        return self.summary.get("confidence", 0.95)

    @cached_property
    def groups(self) -> list[str]:
        """Which of GROUPS were measured."""
        found = set(self.results["seen"])
        return [group for group in GROUPS if group in found]

    @cached_property
    def modalities(self) -> list[str]:
        """'all' and the single modalities that corruptions were applied to."""
        rows = self.results[self.results["seen"].isin(["seen", "unseen"])]
        return [m for m in (ALL, *self.summary.get("modalities", [])) if m in set(rows["modality"])]

    @cached_property
    def _scores(self) -> dict[tuple, dict]:
        return {_key(row): row for row in self.summary.get("scores", [])}

    @cached_property
    def _differences(self) -> dict[tuple, dict]:
        return {_key(row): row for row in self.summary.get("differences", [])}

    def score(self, model: str, corruption: str, label: str = MEAN, metric: str = "Dice",
              severity: int | str = MEAN, modality: str = ALL) -> Score:
        """Mean of a corruption or of one of GROUPS. All NaN if it was not measured."""
        row = _find(self._scores, model, corruption, severity, modality, label, metric)
        if row is not None:
            return Score(number(row["mean"]), number(row["low"]), number(row["high"]), int(row["n"] or 0))
        if corruption not in GROUPS or modality != ALL:
            return Score(math.nan)
        values = self.case_means(label, metric)
        values = values[(values["model"] == model) & (values["seen"] == corruption)][metric].dropna()
        return Score(float(values.mean()) if len(values) else math.nan, n=len(values))

    def difference(self, model: str, corruption: str, label: str = MEAN, metric: str = "Dice",
                   severity: int | str = MEAN, modality: str = ALL) -> Difference | None:
        """Of `model` to the reference; None if it was not measured."""
        row = _find(self._differences, model, corruption, severity, modality, label, metric)
        if row is None or row["difference"] is None:
            return None
        return Difference(*(number(row[key]) for key in ("difference", "low", "high")),
                          *(int(row[key] or 0) for key in ("n", "better", "worse")), number(row.get("p")))

    def case_means(self, label: str = MEAN, metric: str = "Dice") -> pd.DataFrame:
        """Columns model, seen, case and `metric`: mean of each case over the conditions of a group, without NaN."""
        rows = self.results if label == MEAN else self.results[self.results["label"] == label]
        conditions = ["model", "seen", "case", "corruption", "severity", "modality"]
        per_condition = rows.groupby(conditions, as_index=False)[metric].mean()
        return per_condition.groupby(["model", "seen", "case"], as_index=False)[metric].mean()


def _key(row: dict) -> tuple:
    return tuple(str(row[k]) for k in ("model", "corruption", "severity", "modality", "label", "metric"))


def _find(index: dict[tuple, dict], model: str, corruption: str, severity: int | str, modality: str, label: str,
          metric: str) -> dict | None:
    # these two have one severity only, of which the mean may not be listed
    severities = {"clean": (severity, MEAN, 0), "missing": (severity, MEAN, 1)}.get(corruption, (severity,))
    # groups are means over whatever modalities were corrupted; so is a corruption that was never applied to all at once
    modalities = (ALL, MEAN) if modality == ALL else (modality,)
    found = (index.get((model, corruption, str(s), m, label, metric)) for m in modalities for s in severities)
    return next((row for row in found if row is not None), None)
