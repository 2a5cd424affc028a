"""Voxels that nobody annotated (nnU-Net's ignore label) teach the segmentation nothing, restoration as others do."""

import pytest
import torch
from plans import DATASET_JSON

from nnunetv2_rmr.training import panel
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR

LABELS = {"labels": {"background": 0, "lesion": 1, "ignore": 2}}


def test_unannotated_voxels_teach_restoration_only(trainer_of):
    trainer = trainer_of(nnUNetTrainerRMR, epochs=1, dataset_json=DATASET_JSON | LABELS)
    clean = torch.randn(2, 2, 8, 8, 8)
    target = torch.randint(0, 2, (2, 1, 8, 8, 8)).float()
    target[:, :, :4] = 2
    out = trainer.network(torch.cat((clean, clean + 0.1), 1))
    for output in (out.logits, out.restored):
        output.retain_grad()
    trainer.loss(out, target).backward()
    of_logits, of_images = out.logits.grad, out.restored.grad
    assert of_logits.shape[1] == 2, "the ignore label is not predicted"
    assert (of_logits[:, :, :4] == 0).all() and (of_logits[:, :, 4:] != 0).all()
    assert (of_images[:, :, :4] != 0).all()


@pytest.mark.parametrize("labels", [LABELS["labels"], {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}])
def test_the_picture_of_the_training_takes_unannotated_voxels_for_background(trainer_of, monkeypatch, tmp_path, labels):
    regions = {"regions_class_order": [1, 2]} if "core" in labels else {}
    trainer = trainer_of(nnUNetTrainerRMR, epochs=1, dataset_json=DATASET_JSON | {"labels": labels} | regions)
    trainer.current_epoch = 1
    clean = torch.randn(1, 2, 8, 8, 8)
    lesion, unannotated = (torch.zeros(1, 1, 8, 8, 8) for _ in range(2))
    lesion[:, :, 6, 3:5, 3:5] = 1
    unannotated[:, :, :4] = 1
    target = torch.cat((lesion, lesion, unannotated), 1) if regions else lesion + labels["ignore"] * unannotated
    seen = []
    monkeypatch.setattr(panel, "_slice_with_most", lambda mask: seen.append(mask) or (0,))
    panel.save_panel(trainer, {"data": torch.cat((clean, clean), 1), "target": target}, str(tmp_path / "panel.png"))
    assert torch.equal(seen[0], lesion[0, 0] > 0)
