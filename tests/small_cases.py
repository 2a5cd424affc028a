"""A case, a network and a predictor for the plans of plans.py."""

import numpy as np
import tiny
import torch
from plans import CHANNELS, DATASET_JSON

from nnunetv2_rmr.inference.predictor import RMRPredictor
from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR

OBLIQUE = tuple(np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0].ravel())


def oblique_case(folder, spacing=(0.9, 1.1, 2.5)) -> list[str]:
    """Both modalities of a case that is oblique, anisotropic and has empty borders to crop; returns the files."""
    images, _ = tiny.tiny_case(np.random.default_rng(0), shape=(14, 24, 20))
    files = []
    for i, image in enumerate((images[0], images[2])):
        image[:3] = image[:, :4] = image[..., -2:] = 0
        files.append(folder / f"case_{i:04d}.nii.gz")
        tiny.write_image(image, files[-1], spacing=spacing, origin=(-31.5, 17.25, 60.0), direction=OBLIQUE)
    return [str(f) for f in files]


def predictor_for(plans, network, cls=RMRPredictor, **kwargs):
    predictor = cls(device=torch.device("cpu"), allow_tqdm=False, **kwargs)
    parameters = [network.state_dict()]
    predictor.manual_initialization(network, plans, plans.get_configuration("test"), parameters, DATASET_JSON,
                                    "nnUNetTrainerRMR", (0, 1, 2)[:len(plans.get_configuration("test").patch_size)])
    return predictor


def network_for(plans) -> RMRNet:
    torch.manual_seed(0)
    network = nnUNetTrainerRMR.build_network_architecture(plans, plans.get_configuration("test"), len(CHANNELS), 2,
                                                          False)
    for parameter in network.image_decoder.parameters():  # whose last layer starts at zero
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()
