"""nnU-Net v2 extension: fuse the modalities of a case into one image and segment it, both robust to degraded scans."""

__version__ = "0.2.0"
