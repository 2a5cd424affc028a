"""Pictures for the experiment tracker that nnU-Net was told to use. Numbers reach it through nnU-Net's own logger."""

from nnunetv2.training.logging.nnunet_logger import MetaLogger, WandbLogger


def log_picture(logger: MetaLogger, name: str, file: str, epoch: int) -> None:
    """Send a picture to Weights & Biases if nnU-Net's switch nnUNet_wandb_enabled is on, else do nothing."""
    for tracker in logger.loggers:
        if isinstance(tracker, WandbLogger):
            import wandb  # installed, since nnU-Net could make its tracker

            tracker.log(name, wandb.Image(file), epoch)
