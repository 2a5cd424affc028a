"""Fused images by nnU-Net's own commands."""

from __future__ import annotations

from functools import wraps

# not from nnU-Net's module, in which cli/predict.py has put another class by the time this is imported
from nnunetv2_rmr.inference.predictor import RMRPredictor, nnUNetPredictor

_STOCK = {name: getattr(nnUNetPredictor, name) for name in ("predict_from_files", "predict_from_files_sequential")}


def let_stock_predictor_save_fused() -> None:
    """From now on nnU-Net's own predictor turns into an RMRPredictor when it is asked to predict with an RMR model.

    Called while nnU-Net builds the network of one, and only if nnUNet_rmr_save_fused=1 asks for it; otherwise nothing
    of nnU-Net is touched.
    """
    def turning_into_ours(name: str, original):
        @wraps(original)
        def predict(self, *args, **kwargs):
            if type(self) is nnUNetPredictor:
                self.__class__ = RMRPredictor
                self.prepare_preprocessing()
                return getattr(self, name)(*args, **kwargs)
            return original(self, *args, **kwargs)

        return predict

    for name, original in _STOCK.items():
        setattr(nnUNetPredictor, name, turning_into_ours(name, original))
