"""What was measured, one line per prediction, in one file per case: nothing measured is lost when the run is killed."""

import json
from collections.abc import Iterable
from pathlib import Path

from nnunetv2_rmr.evaluation.benchmark.conditions import Condition

Key = tuple[str, Condition]  # model, condition
# "restored_to" of records with restoration; older ones have none: they compare with the model's own clean fused image
RESTORED_TO = "target"


class CaseRecords:
    """The records of one case, in OUT/records/CASE.jsonl.

    A line that a kill cut short is dropped; its prediction is made again. Records of failures are kept in the file for
    the reader but do not count as done.
    """

    def __init__(self, out: Path, case: str):
        self.case = case
        self.file = out / "records" / f"{case}.jsonl"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        text = self.file.read_text() if self.file.exists() else ""
        if text and not text.endswith("\n"):
            with open(self.file, "a") as file:
                file.write("\n")
        self.records = {}
        for line in text.splitlines():
            try:
                self._keep(json.loads(line))
            except json.JSONDecodeError:
                continue

    def _keep(self, record: dict) -> None:
        condition = Condition(record["corruption"], record["severity"], record["modality"])
        self.records[record["model"], condition] = record

    def done(self, key: Key) -> bool:
        return key in self.records and "error" not in self.records[key]

    def add(self, key: Key, result: dict) -> None:
        model, condition = key
        record = {"model": model, "corruption": condition.corruption, "seen": condition.seen,
                  "severity": condition.severity, "modality": condition.modality, "case": self.case, **result}
        # null for NaN and infinity, which JSON does not have
        record = json.loads(json.dumps(record), parse_constant=lambda constant: None)
        with open(self.file, "a") as file:
            file.write(json.dumps(record) + "\n")
        self._keep(record)


def gather(out: Path, cases: Iterable[str], keys: Iterable[Key]) -> tuple[list[dict], list[dict], int]:
    """Records of finished predictions, records of failures, and how many predictions nobody has tried yet."""
    keys = list(keys)
    finished, failed, untried = [], [], 0
    for case in cases:
        records = CaseRecords(out, case)
        for key in keys:
            if key not in records.records:
                untried += 1
            elif records.done(key):
                finished.append(records.records[key])
            else:
                failed.append(records.records[key])
    return finished, failed, untried
