"""Signal equations of three MRI sequences, a contrast agent, and what they need to know about brain tissue at 3 T.

Equations: Bernstein, King, Zhou, Handbook of MRI Pulse Sequences, 2004. All of them are for a perfect pulse and a
steady state; the gradient echo decays with T2 here instead of T2*, which at an echo time of 3 ms is nearly the same
factor for every tissue.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import cos, exp, radians, sin


@dataclass(frozen=True)
class Tissue:
    """proton_density: relative to water, 0 to 1. t1, t2: relaxation times in ms."""

    proton_density: float
    t1: float
    t2: float


# T1 and T2 of white and grey matter at 3 T: Wansapura, Holland, Dunn, Ball, J Magn Reson Imaging 1999;9:531-538.
# T1 and T2 of subarachnoid CSF at 3 T: 4309 and 1886 ms in "Quantification of T1 and T2 of subarachnoid CSF:
# Implications for water exchange between CSF and brain tissues", Magn Reson Med, PMC10696635.
# Water contents: 69.1 % and 83.7 % in "A Single-Scan, Rapid Whole-Brain Protocol for Quantitative Water Content Mapping
# With Neurobiological Implications", Front Neurol 2019;10:1333.
WHITE_MATTER = Tissue(proton_density=0.69, t1=832, t2=80)
GREY_MATTER = Tissue(proton_density=0.84, t1=1331, t2=110)
CSF = Tissue(proton_density=1.00, t1=4300, t2=1900)


# tr, te, ti: repetition, echo and inversion time in ms.

def spin_echo(tissue: Tissue, tr: float, te: float) -> float:
    return tissue.proton_density * (1 - exp(-tr / tissue.t1)) * exp(-te / tissue.t2)


def spoiled_gradient_echo(tissue: Tissue, tr: float, te: float, flip: float) -> float:
    """flip: angle in degrees."""
    e1, angle = exp(-tr / tissue.t1), radians(flip)
    return tissue.proton_density * sin(angle) * (1 - e1) / (1 - cos(angle) * e1) * exp(-te / tissue.t2)


def inversion_recovery(tissue: Tissue, tr: float, te: float, ti: float) -> float:
    """Of a spin echo after an inversion pulse; the signal has a sign."""
    longitudinal = 1 - 2 * exp(-ti / tissue.t1) + exp(-tr / tissue.t1)
    return tissue.proton_density * longitudinal * exp(-te / tissue.t2)


# In ms^-1 per mmol/l, gadobutrol in plasma at 3 T, 37 degrees: 5.0 l/mmol/s in Rohrer, Bauer, Mintorovitch, Requardt,
# Weinmann, Invest Radiol 2005;40:715-724.
RELAXIVITY = 0.005


def with_contrast_agent(tissue: Tissue, concentration: float) -> Tissue:
    """The same tissue with gadolinium, in mmol/l: T1 is shortened. So would T2 be, by too little to be seen here."""
    return replace(tissue, t1=1 / (1 / tissue.t1 + RELAXIVITY * concentration))


# T1ce: T1-weighted, after the contrast agent, which enters lesions only.
# FLAIR's inversion time is where CSF crosses zero at this repetition time: ti = t1 ln(2 / (1 + exp(-tr / t1)))
SEQUENCES: dict[str, Callable[[Tissue], float]] = {
    "T1ce": partial(spoiled_gradient_echo, tr=20, te=3, flip=25),
    "T2": partial(spin_echo, tr=5000, te=100),
    "FLAIR": partial(inversion_recovery, tr=9000, te=120, ti=2480),
}
