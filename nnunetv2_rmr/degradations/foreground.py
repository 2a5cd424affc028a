"""Where the body is, remembered before nnU-Net forgets it."""

from __future__ import annotations

from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform


class RememberForegroundTransform(BasicTransform):
    """Store where the body is as data_dict['foreground'], a boolean (D, H, W) or (H, W).

    nnU-Net marks what lies outside the body (zero in all modalities) or outside the image (padding) as -1 in
    segmentation channel 0, until its RemoveLabelTransform turns -1 into background. This transform goes before it.
    """

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        data_dict["foreground"] = data_dict["segmentation"][0] >= 0
        return data_dict
