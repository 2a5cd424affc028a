"""nnU-Net's trainer with the RMR network, its two stages and its losses."""

import os
from dataclasses import replace
from os.path import join

import numpy as np
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.helpers import dummy_context
from torch import autocast
from torch import distributed as dist
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel as DDP

from nnunetv2_rmr.degradations.degrade import add_degradations, drawn_by, split_clean_degraded
from nnunetv2_rmr.inference.stock import let_stock_predictor_save_fused
from nnunetv2_rmr.losses.coupled import TERMS, fusion_terms, outputs_for, refinement_terms, term_weights
from nnunetv2_rmr.losses.uncertainty import separate_log_variances, uncertainty_weighted
from nnunetv2_rmr.networks.build import build_rmrnet, takes_deep_supervision
from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.networks.start import start_as_modalities
from nnunetv2_rmr.settings import RMRSettings, channel_names, reference_channel
from nnunetv2_rmr.training.modality_dropout import draw_presence
from nnunetv2_rmr.training.panel import save_panel
from nnunetv2_rmr.training.progress import plot_loss_terms
from nnunetv2_rmr.training.reproducible import SeedNextSample, seed_everything, seed_from_environment
from nnunetv2_rmr.training.schedule import WarmupCosineLR
from nnunetv2_rmr.training.tracking import log_picture
from nnunetv2_rmr.training.validation import export_validation_fusion


class nnUNetTrainerRMR(nnUNetTrainer):
    """Two stages in one training (RMR, AAAI 2024):

    1. for the first `stage1_fraction` of the epochs the encoders and the fusion decoder learn to reconstruct every
       modality, clean, from degraded input (Adam);
    2. the whole network learns nnU-Net's segmentation loss together with the fusion losses (nnU-Net's optimiser).

    All other things are nnU-Net's. `settings` holds every choice; see RMRSettings for how to change one.
    """

    settings = RMRSettings()
    epochs: int | None = None  # None: nnU-Net's number. Its variants set it, see variants.py

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                 device: torch.device = torch.device("cuda")):
        names = channel_names(dataset_json)
        if len(names) < 2:
            raise NotImplementedError(f"{type(self).__name__} fuses two or more modalities, but the data set "
                                      f"{plans['dataset_name']} has one channel only ({names[0]}): use nnUNetTrainer")
        self.settings.refuse_contradiction(plans, type(self).__name__)
        settings = RMRSettings.from_plans(plans, self.settings)
        chosen = settings.changed()
        # resolved now, so that the model keeps its reference modality whatever later versions take as default; by
        # number where channels share a name, as they do if they are named by their normalisation
        reference = reference_channel(settings.reference_modality, names)
        unique = [name.casefold() for name in names].count(names[reference].casefold()) == 1
        settings = replace(settings, reference_modality=names[reference] if unique else reference)
        super().__init__(settings.into_plans(plans), configuration, fold, dataset_json, device)
        self._replaced = {}
        self._use(settings)
        self.print_to_log_file("RMR settings other than the defaults:", chosen or "none")
        if self.epochs is not None:
            self.num_epochs = self.epochs
            self.save_every = max(1, self.epochs // 10)  # nnU-Net's 50 would leave a short training nothing to resume
        self.stage = self.stage_of(0)
        self._last_batch = None
        for term in TERMS:
            self.logger.local_logger.my_fantastic_logging.setdefault(f"loss_{term}", [])

    # ---- settings ---------------------------------------------------------------------------------------------------

    def _use(self, settings: RMRSettings) -> None:
        self.settings = settings
        self.reference = reference_channel(settings.reference_modality, channel_names(self.dataset_json))
        for name, value in (("initial_lr", settings.stage2_lr), ("weight_decay", settings.stage2_weight_decay)):
            if value is not None:
                self._replaced.setdefault(name, getattr(self, name))
                setattr(self, name, value)
            elif name in self._replaced:  # by the settings before these
                setattr(self, name, self._replaced.pop(name))

    @property
    def stage1_epochs(self) -> int:
        """With two epochs or more both stages have at least one, unless stage 1 is switched off."""
        if self.settings.stage1_fraction == 0 or self.num_epochs < 2:
            return 0
        return min(max(1, round(self.settings.stage1_fraction * self.num_epochs)), self.num_epochs - 1)

    def stage_of(self, epoch: int) -> int:
        """1 while the autoencoder is trained, then 2."""
        return 1 if epoch < self.stage1_epochs else 2

    # ---- network and optimiser --------------------------------------------------------------------------------------

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, num_input_channels: int,
                                   num_output_channels: int, enable_deep_supervision: bool = True):
        # nnU-Net calls this for every model it loads: the one place where a stock predictor meets our package
        if os.environ.get("nnUNet_rmr_save_fused", "0").lower() in ("1", "true", "t"):
            let_stock_predictor_save_fused()
        return build_rmrnet(plans_manager, configuration_manager, num_input_channels, num_output_channels,
                            enable_deep_supervision)

    def initialize(self):
        # before the weights are drawn
        seed = seed_from_environment()
        if seed is not None:
            seed_everything(seed)
        self.stage = self.stage_of(self.current_epoch)
        if not takes_deep_supervision(self.configuration_manager):
            self.enable_deep_supervision = False
        # Each set of outputs that is asked for is compiled once: seven in a training with all its validations. From the
        # ninth on torch would run the network uncompiled.
        torch._dynamo.config.cache_size_limit = max(16, torch._dynamo.config.cache_size_limit)
        super().initialize()
        if self.settings.starts_as_modalities:
            start_as_modalities(self.rmrnet, self.reference)

    @property
    def rmrnet(self) -> RMRNet:
        """The network without the wrappers of DDP and torch.compile."""
        network = self.network.module if isinstance(self.network, DDP) else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    def _do_i_compile(self):
        # nnU-Net's decision, except that windows of every kind make graphs of thousands of operations, for which the
        # compiler takes longer than it saves: Swin encoders are compiled only if the user asks for it
        if self.settings.encoder == "swin" and "nnUNet_compile" not in os.environ:
            return False
        return super()._do_i_compile()

    def configure_optimizers(self):
        # stage 1 trains another set of weights than stage 2 and, without any normalisation layer, wants Adam
        autoencoder = self.rmrnet.autoencoder_parameters()
        for parameter in self.rmrnet.parameters():
            parameter.requires_grad_(self.stage == 2)
        for parameter in autoencoder:
            parameter.requires_grad_(self.stage == 1 or not self.settings.freeze_autoencoder)
        if self.stage == 2:  # DDP waits for the gradients of all that may be trained, also if no loss term asks for it
            outputs = outputs_for(term_weights(2, self.settings))
            if "logits" not in outputs:
                self.rmrnet.segmentation.requires_grad_(False)
            if "fused" not in outputs and "reconstructions" not in outputs:
                self.rmrnet.fusion_decoder.requires_grad_(False)
        optimizer, scheduler = super().configure_optimizers()
        settings = self.settings
        if self.stage == 1:
            optimizer = torch.optim.Adam(autoencoder, settings.stage1_lr, weight_decay=settings.stage1_weight_decay)
            if settings.stage1_schedule == "cosine":
                return optimizer, WarmupCosineLR(optimizer, settings.stage1_lr, 0, self.stage1_epochs)
            return optimizer, PolyLRScheduler(optimizer, settings.stage1_lr, self.num_epochs)
        if settings.stage2_optimizer == "adamw":
            trained = [parameter for parameter in self.rmrnet.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(trained, self.initial_lr, weight_decay=self.weight_decay)
            scheduler = PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)
        if len(self.rmrnet.log_variances):
            separate_log_variances(optimizer, list(self.rmrnet.log_variances.values()))
        if settings.stage2_schedule == "cosine":
            epochs = self.num_epochs - self.stage1_epochs
            scheduler = WarmupCosineLR(optimizer, self.initial_lr, self.stage1_epochs, epochs,
                                       min(round(settings.stage2_warmup_fraction * epochs), epochs - 1))
        return optimizer, scheduler

    def _enter_stage(self, stage: int) -> None:
        self.stage = stage
        self.network.zero_grad()  # the next optimiser does not know what it freezes, and would leave its last gradients
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        if isinstance(self.network, DDP):  # it synchronises only what was trainable when it was wrapped
            self.network = DDP(self.network.module, device_ids=self.network.device_ids)

    # ---- data -------------------------------------------------------------------------------------------------------

    def get_training_transforms(self, *args, **kwargs):
        # an instance method, where nnU-Net has a static one, because the degradations need spacing and settings
        transforms = add_degradations(
            super().get_training_transforms(*args, **kwargs),
            num_modalities=self.rmrnet.num_modalities,
            spacing=self.configuration_manager.spacing,
            p_clean=self.settings.p_clean,
            **drawn_by(self.settings, self.configuration_manager),
        )
        return self._seeded(transforms, stream=0, batches_before=self.current_epoch * self.num_iterations_per_epoch)

    def get_validation_transforms(self, *args, **kwargs):
        # only to seed them; the online validation sees clean patches, so its pseudo Dice compares with nnU-Net's
        transforms = super().get_validation_transforms(*args, **kwargs)
        return self._seeded(transforms, stream=1, batches_before=self.current_epoch * self.num_val_iterations_per_epoch)

    def _seeded(self, transforms, stream: int, batches_before: int):
        seed, workers = seed_from_environment(), get_allowed_n_proc_DA()
        if seed is not None and workers <= 1:
            stream += 2 * self.local_rank  # the processes of a distributed training draw different samples
            transforms.transforms.append(SeedNextSample(seed, stream, batches_before * self.batch_size))
        elif seed is not None and stream == 0:  # each would count its own samples, and all would draw the same
            self.print_to_log_file(f"WARNING: nnUNet_rmr_seed={seed} does not seed the training patches: that takes at "
                                   f"most one data augmentation worker (nnUNet_n_proc_DA=1), not {workers}")
        return transforms

    # ---- training ---------------------------------------------------------------------------------------------------

    def on_epoch_start(self):
        super().on_epoch_start()
        seed = seed_from_environment()
        # whatever draws random numbers in this process (drop path, modality dropout) resumes as it would go on, and
        # draws others in each process of a distributed training, which all begin with torch's default state
        if seed is not None:
            torch.manual_seed(seed + self.current_epoch + 10**6 * self.local_rank)
        elif self.is_ddp:
            torch.seed()

    def on_train_epoch_start(self):
        if self.stage_of(self.current_epoch) != self.stage:
            self._enter_stage(self.stage_of(self.current_epoch))
        super().on_train_epoch_start()
        self.print_to_log_file(f"Stage {self.stage}: "
                               + ("autoencoder, no segmentation yet" if self.stage == 1 else "fusion and segmentation"))

    def train_step(self, batch: dict) -> dict:
        # nnU-Net's step with several outputs and losses; scaling and stepping are the same
        self._last_batch = batch
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"]
        target = [t.to(self.device, non_blocking=True) for t in target] if isinstance(target, list) \
            else target.to(self.device, non_blocking=True)
        clean, degraded = split_clean_degraded(data, self.rmrnet.num_modalities)

        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device.type, enabled=True) if self.device.type == "cuda" else dummy_context():
            terms = self._loss_terms(clean, degraded, target)
        weights = term_weights(self.stage, self.settings)
        if self.stage == 2 and self.settings.balance == "uncertainty":
            loss = uncertainty_weighted(terms, weights, self.rmrnet.log_variances)
        else:
            loss = sum(weights[name] * term for name, term in terms.items())

        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.grad_scaler is not None:
            self.grad_scaler.scale(loss).backward()
            self.grad_scaler.unscale_(self.optimizer)
            self._clip_gradients(parameters)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            loss.backward()
            self._clip_gradients(parameters)
            self.optimizer.step()
        # one transfer for all values, NaN for a term that this stage does not have
        values = torch.stack([loss.detach(), *(terms[t].detach().float() if t in terms else loss.new_tensor(np.nan)
                                               for t in TERMS)]).cpu().numpy()
        return {"loss": values[0], "terms": values[1:]}

    def _clip_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """As nnU-Net, and in stage 2 the front by itself before: it has no normalisation layers that would hold the
        size of its features, and with squared differences to an image SGD can diverge at nnU-Net's learning rate."""
        if self.stage == 2 and self.settings.front_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.rmrnet.front_parameters(), self.settings.front_clip)
        torch.nn.utils.clip_grad_norm_(parameters, 12)

    def _loss_terms(self, clean: torch.Tensor, degraded: torch.Tensor, target) -> dict[str, torch.Tensor]:
        """Unweighted loss terms of the present stage; losses on images are computed in float32 also under autocast.

        Stage 1 is stage 2 without fusion and segmentation. That clean input is reconstructed as well it learns from
        the samples and modalities that the degradations left clean.
        """
        if self.stage == 2 and not self.settings.stage2_degraded:
            degraded = torch.cat((clean, degraded[:, clean.shape[1]:]), dim=1)  # the extra channels are there only
        weights = term_weights(self.stage, self.settings)
        outputs = outputs_for(weights)
        refine = "features" in outputs
        presence = None
        if self.stage == 2 and self.settings.modality_dropout > 0:  # of the fusion module, which stage 1 does not train
            presence = draw_presence(len(clean), clean.shape[1], self.settings.modality_dropout).to(self.device)
        out = self.network(degraded, outputs=outputs, presence=presence)
        terms = {}
        if "segmentation" in weights:
            terms["segmentation"] = self.loss(out.logits, target)
        if refine:
            # without gradients where they are not needed: they would cost as much memory again
            with torch.set_grad_enabled(not self.settings.feature_loss_relative):
                clean_features = self.network(clean, outputs=("features",)).features
        with autocast(self.device.type, enabled=False) if self.device.type == "cuda" else dummy_context():
            terms |= fusion_terms(out, clean, self.reference, self.settings)
            if refine:
                terms |= refinement_terms(out, clean, clean_features, self.settings)
        return {name: term for name, term in terms.items() if name in weights}

    def on_train_epoch_end(self, train_outputs: list[dict]):
        terms = np.stack([o.pop("terms") for o in train_outputs]).mean(0)
        super().on_train_epoch_end(train_outputs)
        if self.is_ddp:
            gathered = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, terms)
            terms = np.mean(gathered, axis=0)
        for name, value in zip(TERMS, terms):
            self.logger.log(f"loss_{name}", float(value), self.current_epoch)
        self.print_to_log_file("loss terms, unweighted:", ", ".join(
            f"{name} {value:.4f}" for name, value in zip(TERMS, terms) if not np.isnan(value)))
        if self.stage == 2 and len(self.rmrnet.log_variances):
            self.print_to_log_file("learned factors of the weights", ", ".join(
                f"{name} {torch.exp(-s).item():.3f}" for name, s in self.rmrnet.log_variances.items()))

    def on_epoch_end(self):
        epoch = self.current_epoch
        super().on_epoch_end()
        if self.local_rank != 0:
            return
        plot_loss_terms(self.logger.local_logger.my_fantastic_logging, join(self.output_folder, "progress_rmr.png"))
        every = self.settings.panel_every
        if every is None:
            every = max(1, self.num_epochs // 10)
        if every > 0 and ((epoch + 1) % every == 0 or epoch == self.num_epochs - 1):
            panel = join(self.output_folder, "panels", f"epoch_{epoch:04d}.png")
            save_panel(self, self._last_batch, panel)
            log_picture(self.logger, "panel", panel, epoch)

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def save_checkpoint(self, filename: str) -> None:
        # nnU-Net writes in place: a process killed meanwhile would leave a broken checkpoint and lose the one before
        temporary = join(os.path.dirname(filename), "checkpoint.tmp")  # one name: what a kill left is overwritten
        super().save_checkpoint(temporary)
        if self.local_rank == 0 and not self.disable_checkpointing:
            os.replace(temporary, filename)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        # network, stage and optimiser have to be those of the saved epoch before nnU-Net loads their states
        checkpoint = filename_or_checkpoint
        if isinstance(checkpoint, str):
            checkpoint = torch.load(checkpoint, map_location="cpu", weights_only=False)
        settings = RMRSettings.from_plans(checkpoint["init_args"]["plans"])
        if passed_over := self.settings.changed(settings):
            self.print_to_log_file(f"The checkpoint's settings hold; those of now are passed over: {passed_over}")
        self._use(settings)
        self.plans_manager.plans.update(settings.into_plans({}))
        stage = self.stage_of(checkpoint["current_epoch"] - 1)
        if not self.was_initialized:
            self.initialize()
        if stage != self.stage:
            self._enter_stage(stage)
        super().load_checkpoint(filename_or_checkpoint)
        logged = self.logger.local_logger.my_fantastic_logging
        for term in TERMS:  # a training of an earlier version, which did not have this term
            logged.setdefault(f"loss_{term}", [float("nan")] * self.current_epoch)

    # ---- validation -------------------------------------------------------------------------------------------------

    def perform_actual_validation(self, save_probabilities: bool = False):
        # before nnU-Net's, at whose end one process alone computes scores: the others would wait for it too long
        export_validation_fusion(self)
        super().perform_actual_validation(save_probabilities)
