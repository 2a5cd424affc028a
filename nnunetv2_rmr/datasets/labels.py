"""What label values mean: plain labels, regions, and the order in which predicted regions become labels again."""

from collections.abc import Collection, Mapping, Sequence

from nnunetv2_rmr.files.refused import BadCaseError, some_of

Regions = Mapping[str, Sequence[int]]


def labels_for_dataset_json(labels: Mapping[str, int] | None, regions: Regions | None, ignore_label: int | None,
                            found: Collection[int] = ()) -> dict[str, int | list[int]]:
    """The `labels` entry of dataset.json, background first, ignore last.

    Without `labels` and `regions` the values `found` in the data become label_1, label_2 ...
    Raises BadCaseError for values nnU-Net can not use: they must be 1, 2, 3 ... without a gap, the ignore label the
    next one; regions must hold several labels at least once.
    """
    if labels and regions:
        raise BadCaseError("--labels and --regions exclude each other; a label of its own is a region of one value: "
                            "--regions edema=2")
    if regions and all(len(values) == 1 for values in regions.values()):
        raise BadCaseError("--regions: every region has one label only, so these are plain labels: use --labels")
    named = regions or labels or {f"label_{v}": v for v in sorted({*found} - {0, ignore_label})}
    option = "--regions" if regions else "--labels" if labels else "label files (after --map)"
    for name in named:
        if name in ("background", "ignore"):
            raise BadCaseError(f"{option} {name}=...: nnU-Net reserves this name; background is always 0, the ignore "
                                "label is set by --ignore_label")
    values = values_of(named)
    if not values:
        raise BadCaseError("the label files hold no value but 0 (background): there is nothing to learn")
    if values != list(range(1, len(values) + 1)):
        remap = _list([f"{v}={i}" for i, v in enumerate(values, 1) if i != v])
        raise BadCaseError(f"{option}: the values are {_list(values)}, but nnU-Net needs 1, 2, 3 ... without a gap "
                            f"(0 is background); for example --map {remap}")
    if ignore_label is not None and ignore_label != len(values) + 1:
        raise BadCaseError(f"--ignore_label {ignore_label}: nnU-Net needs the value after the last label, "
                            f"{len(values) + 1}: use --map {ignore_label}={len(values) + 1} "
                            f"--ignore_label {len(values) + 1}")
    result: dict[str, int | list[int]] = {"background": 0}
    for name, item in named.items():
        result[name] = item if isinstance(item, int) else (list(item) if len(item) > 1 else item[0])
    if ignore_label is not None:
        result["ignore"] = ignore_label
    return result


def values_of(labels: Mapping[str, int | Sequence[int]]) -> list[int]:
    """All label values, sorted, of labels and regions."""
    return sorted({v for item in labels.values() for v in ([item] if isinstance(item, int) else item)})


def default_class_order(regions: Regions) -> list[int]:
    """For each region the label that lies in it and in no later one: what is left of it once later ones are painted.

    Whole tumour (1, 2, 3), core (2, 3), enhancing (3) gives [1, 2, 3]. A region that later ones cover completely gets
    its smallest label.
    """
    sets = [set(values) for values in regions.values()]
    order = []
    for i, region in enumerate(sets):
        left = region.difference(*sets[i + 1:])
        order.append(min(left or region))
    return order


def merged_labels(regions: Regions, order: Sequence[int]) -> dict[int, int]:
    """Labels a prediction can not tell apart (they lie in the same regions), with the one written for each.

    Raises BadCaseError if `order` has the wrong length or if a correctly predicted voxel would be written with a
    label that lies in other regions, so that the written segmentation contradicts the prediction.
    """
    if len(order) != len(regions):
        raise BadCaseError(f"--regions_class_order {_list(order)}: {len(order)} labels for {len(regions)} regions; "
                            f"give one each, in the order of --regions ({_list(regions)})")
    merged = {}
    for label in values_of(regions):
        # where exactly the regions of `label` are predicted, the last one painted wins
        written = [value for values, value in zip(regions.values(), order) if label in values][-1]
        is_in, would_be_in = _membership(regions, label), _membership(regions, written)
        if is_in != would_be_in:
            raise BadCaseError(
                f"--regions_class_order {_list(order)}: a voxel of label {label} (in {_list(is_in)}) would be "
                f"written as {written} (in {_list(would_be_in) or 'no region'}). Each entry is the label written for "
                "that region, and later regions overwrite earlier ones: list larger regions first and "
                f"give each the label that is left of it (here {_list(default_class_order(regions))} by default). "
                "Regions that overlap without one containing the other can not be written as labels")
        if written != label:
            merged[label] = written
    return merged


def _membership(regions: Regions, label: int) -> list[str]:
    return [name for name, values in regions.items() if label in values]


def _list(items: Collection) -> str:
    """At most 20 items: a label pattern that matches images brings thousands of values."""
    return some_of([*map(str, items)], 20, " ")
