"""A fused image for an nnU-Net model that exists: its network stays as it is, only the restoration head learns."""

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.networks.fusing import unwrapped
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR

# what segmentations depend on, beside the configuration; of this all but the rest
PLANNED = ("transpose_forward", "foreground_intensity_properties_per_channel", "image_reader_writer", "label_manager")
OF_DATASET = ("channel_names", "labels", "regions_class_order")
OF_TRAINING = ("batch_size",)


class nnUNetTrainerRMR_fusionOnly(nnUNetTrainerRMR):
    """For `nnUNetv2_train ... -pretrained_weights CHECKPOINT` of a trained nnU-Net model with the same plans.

    Its segmentations stay byte for byte, as nothing of the segmentation network is trained; without a backward pass
    through it, a step costs less than nnU-Net's own. The default number of epochs is more than restoration took to be
    as good as after a whole training (docs/existing_models.md).
    """

    epochs = 50
    learns_from_unlabelled = False
    _has_weights = False

    def initialize(self) -> None:
        self.enable_deep_supervision = False  # nobody would learn from it
        super().initialize()

    def configure_optimizers(self):
        # before DDP looks at what there is to learn; weight decay, too, passes over weights without gradient
        unwrapped(self.network).segmentation.requires_grad_(False)
        return super().configure_optimizers()

    def read_weights(self, file: str, **_) -> dict:
        """All weights of the network, where nnU-Net itself leaves out the last layers, and what else its predictions
        depend on. Raises BadCaseError for a model of other plans, another data set or another fold.
        """
        found = super().read_weights(file)
        mine = {"plans": self.plans_manager.plans, "configuration": self.configuration_name, "fold": self.fold,
                "dataset_json": self.dataset_json}
        own, theirs = _depended_on(mine), _depended_on(found.get("init_args"))
        if other := [name for name, value in own.items() if name not in theirs or theirs[name] != value]:
            raise BadCaseError(f"-pretrained_weights {file}: this model is of another training than asked for (other: "
                               f"{', '.join(other)}). Its segmentations stay as they are only with the plans (-p), "
                               "dataset.json, configuration and fold that it was trained with")
        network = unwrapped(self.network)
        head = {name: weight for name, weight in network.state_dict().items() if name.startswith("image_decoder.")}
        try:
            network.load_state_dict(head | found["network_weights"])
        except RuntimeError as error:
            raise BadCaseError(f"-pretrained_weights {file}: {found['trainer_name']} has trained another network than "
                               f"the plans name ({error})") from None
        self.inference_allowed_mirroring_axes = found["inference_allowed_mirroring_axes"]
        self._has_weights = True
        return found | {"network_weights": network.state_dict()}

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        super().load_checkpoint(filename_or_checkpoint)
        self._has_weights = True

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        # which axes predictions are mirrored along is the model's, too: its trainer may have chosen others
        axes = self.inference_allowed_mirroring_axes
        of_training = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = axes
        return of_training

    def on_train_start(self) -> None:
        with self.ends_in_one_line():
            if not self._has_weights:
                raise BadCaseError(f"{type(self).__name__} adds a fused image to a model that exists: give its "
                                   "checkpoint with -pretrained_weights "
                                   "(.../nnUNetTrainer__.../fold_0/checkpoint_final.pth)")
        super().on_train_start()

    def on_epoch_start(self) -> None:
        super().on_epoch_start()
        # nnU-Net's best has the highest pseudo Dice, which is chance where segmentations stay: let it be the last one
        self._best_ema = None

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        unwrapped(self.network).segmentation.eval()  # no dropout; statistics of batch norms stay


def _depended_on(init_args: dict | None) -> dict:
    """By segmentations, of the arguments of a trainer."""
    if not init_args or not {"plans", "configuration", "fold", "dataset_json"} <= init_args.keys():
        return {}
    plans, dataset = init_args["plans"], init_args["dataset_json"]
    configuration = PlansManager(plans).get_configuration(init_args["configuration"]).configuration
    return ({name: init_args[name] for name in ("configuration", "fold")}
            | {name: plans.get(name) for name in PLANNED} | {name: dataset.get(name) for name in OF_DATASET}
            | {name: value for name, value in configuration.items() if name not in OF_TRAINING})
