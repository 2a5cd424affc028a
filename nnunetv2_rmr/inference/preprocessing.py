"""nnU-Net's preprocessing, which besides checks its input and remembers how the reference modality was normalised."""

from collections.abc import Sequence

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunetv2_rmr.inference.input_check import BadCaseError, check_array, check_files
from nnunetv2_rmr.inference.intensity import IntensityMap
from nnunetv2_rmr.settings import RMRSettings, channel_names, reference_channel

PROPERTY = "rmr_intensity_map"


class RememberIntensities:
    """Mixed into the preprocessor of the plans: run_case* put an IntensityMap under PROPERTY into the properties."""

    _files: Sequence[str] = ()

    def run_case(self, image_files, seg_file, plans_manager, configuration_manager, dataset_json):
        check_files(image_files)
        self._files = list(image_files)
        try:
            return super().run_case(image_files, seg_file, plans_manager, configuration_manager, dataset_json)
        except BadCaseError:
            raise
        except Exception as error:  # readers raise whatever they like, RuntimeError() without a word among it
            raise BadCaseError(f"can not read or preprocess {', '.join(image_files)}: "
                               f"{str(error).strip() or type(error).__name__}") from error
        finally:
            self._files = []

    def run_case_npy(self, data, seg, properties, plans_manager, configuration_manager, dataset_json):
        names = channel_names(dataset_json)
        check_array(data, names, self._files, dataset_json["file_ending"])
        settings = RMRSettings.from_plans(plans_manager.plans)
        self._reference = reference_channel(settings.reference_modality, names)
        data, seg, properties = super().run_case_npy(data, seg, properties, plans_manager, configuration_manager,
                                                     dataset_json)
        properties[PROPERTY] = self._intensity_map
        return data, seg, properties

    def _normalize(self, data, seg, *args, **kwargs):
        # the one moment at which raw and normalised intensities exist on the same grid
        raw = data[self._reference].copy()
        normalised = super()._normalize(data, seg, *args, **kwargs)
        self._intensity_map = IntensityMap.fit(raw, normalised[self._reference], inside=seg[0] >= 0)
        return normalised


class RMRConfigurationManager(ConfigurationManager):
    """A configuration whose preprocessor remembers, in all of nnU-Net's own preprocessing, worker processes too."""

    @property
    def preprocessor_class(self):
        base = ConfigurationManager.preprocessor_class.fget(self)
        return type(f"Remember{base.__name__}", (RememberIntensities, base), {})
