"""nnU-Net's own `nnUNetv2_predict` writes fused images too, if nnUNet_rmr_save_fused=1 is in the environment."""

from functools import wraps

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

_ENTRIES = ("predict_from_files", "predict_from_files_sequential")


def let_stock_predictor_save_fused() -> None:
    """From now on a stock predictor that holds an RMR model turns into an RMRPredictor when it is asked to predict.

    Called while nnU-Net builds the network of an RMR model and only if the environment asks for it; otherwise nothing
    of nnU-Net is touched.
    """
    for name in _ENTRIES:
        original = getattr(nnUNetPredictor, name)
        if not hasattr(original, "saves_fused"):
            setattr(nnUNetPredictor, name, _turning_into_rmr(name, original))


def _turning_into_rmr(name: str, original):
    @wraps(original)
    def predict(self, *args, **kwargs):
        from nnunetv2_rmr.inference.predictor import RMRPredictor  # not before nnU-Net's own modules are loaded

        if type(self) is nnUNetPredictor:
            self.__class__ = RMRPredictor
            self.remember_intensities()
            return getattr(self, name)(*args, **kwargs)
        return original(self, *args, **kwargs)

    predict.saves_fused = True
    return predict
