"""All corruptions by name: first the kinds that RMR's default training has, then those it never sees."""

from nnunetv2_rmr.evaluation.corruptions.anisotropy import ANISOTROPY
from nnunetv2_rmr.evaluation.corruptions.base import Corruption
from nnunetv2_rmr.evaluation.corruptions.bias_field import BIAS_FIELD
from nnunetv2_rmr.evaluation.corruptions.blur import BLUR
from nnunetv2_rmr.evaluation.corruptions.fourier import FOURIER
from nnunetv2_rmr.evaluation.corruptions.gamma import GAMMA
from nnunetv2_rmr.evaluation.corruptions.ghosting import GHOSTING
from nnunetv2_rmr.evaluation.corruptions.motion import MOTION
from nnunetv2_rmr.evaluation.corruptions.noise import NOISE
from nnunetv2_rmr.evaluation.corruptions.spikes import SPIKES_IN_K_SPACE

SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTIONS: dict[str, Corruption] = {
    corruption.name: corruption
    for corruption in (NOISE, BLUR, FOURIER, MOTION, GHOSTING, SPIKES_IN_K_SPACE, BIAS_FIELD, ANISOTROPY, GAMMA)
}
