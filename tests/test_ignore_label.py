"""Voxels that nobody annotated (nnU-Net's ignore label) teach the segmentation nothing, and fusion as all others do."""

import torch
from plans import DATASET_JSON

from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR

LABELS = {"labels": {"background": 0, "lesion": 1, "ignore": 2}}


def test_unannotated_voxels_teach_fusion_only(trainer_of):
    trainer = trainer_of(nnUNetTrainerRMR, epochs=1, dataset_json=DATASET_JSON | LABELS)  # one epoch: stage 2
    outputs = {}

    def keep(name: str):
        def hook(module, _, output):
            outputs.setdefault(name, output)  # the fusion decoder decodes every modality after the fused image
            if output.requires_grad:
                output.retain_grad()
        return hook

    trainer.rmrnet.segmentation.register_forward_hook(keep("logits"))
    trainer.rmrnet.fusion_decoder.register_forward_hook(keep("image"))
    clean = torch.randn(2, 2, 8, 8, 8)
    target = torch.randint(0, 2, (2, 1, 8, 8, 8)).float()
    target[:, :, :4] = 2
    sum(trainer._loss_terms(clean, clean + 0.1, target).values()).backward()
    of_logits, of_image = outputs["logits"].grad, outputs["image"].grad
    assert of_logits.shape[1] == 2, "the ignore label is not predicted"
    assert (of_logits[:, :, :4] == 0).all() and (of_logits[:, :, 4:] != 0).all()
    assert (of_image[:, :, :4] != 0).all()
