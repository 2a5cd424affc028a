"""What was measured, one line per prediction, in one file per case: nothing measured is lost when the run is killed."""

import json
from collections.abc import Iterable
from pathlib import Path

from nnunetv2_rmr.evaluation.scan_degradations.conditions import Condition

Key = tuple[str, Condition]  # model, condition
# "restored_to" of records with restoration; older ones have none: they compare with the model's own clean fused image
RESTORED_TO = "target"


class CaseRecords:
    """The records of one case by model and condition, in OUT/records/CASE.jsonl.

    A line that a kill cut short is dropped; its prediction is made again. Records of failures are kept in the file for
    the reader but do not count as done.
    """

    def __init__(self, out: Path, case: str):
        self.case = case
        self.file = out / "records" / f"{case}.jsonl"
        self.records: dict[Key, dict] = {}
        text = self.file.read_text() if self.file.exists() else ""
        self._cut_short = text != "" and not text.endswith("\n")
        for line in text.splitlines():
            try:
                self._keep(json.loads(line))
            except json.JSONDecodeError:
                continue

    def _keep(self, record: dict) -> None:
        self.records[record["model"], Condition(record["corruption"], record["severity"], record["modality"])] = record

    def done(self, key: Key) -> bool:
        return key in self.records and "error" not in self.records[key]

    def add(self, key: Key, result: dict) -> None:
        model, condition = key
        record = {"model": model, "corruption": condition.corruption, "seen": condition.seen,
                  "severity": condition.severity, "modality": condition.modality, "case": self.case, **result}
        # null for NaN and infinity, which JSON does not have
        record = json.loads(json.dumps(record), parse_constant=lambda constant: None)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "a") as file:
            file.write("\n" * self._cut_short + json.dumps(record) + "\n")
        self._cut_short = False
        self._keep(record)


def gather(out: Path, cases: Iterable[str], keys: Iterable[Key]) -> tuple[list[dict], list[dict], int]:
    """Records of finished predictions, records of failures, and how many predictions nobody has tried yet."""
    keys = list(keys)
    finished, failed, untried = [], [], 0
    for case in cases:
        records = CaseRecords(out, case)
        for key in keys:
            if records.done(key):
                finished.append(records.records[key])
            elif key in records.records:
                failed.append(records.records[key])
            else:
                untried += 1
    return finished, failed, untried
