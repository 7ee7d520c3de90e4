"""The last step of a pipeline whose images have stored records of a teacher."""

from __future__ import annotations

from mmcv.transforms import BaseTransform

from mmkd_plugin.registry import TRANSFORMS
from mmkd_plugin.utilities.record_key import image_key, set_image_key


@TRANSFORMS.register_module()
class RecordKey(BaseTransform):
    """Say in the data sample which image it shows and how it is flipped; added where ``distill.teacher_cache`` is on.

    It stands behind the packing of the inputs. Samples without it, of a test pipeline for one, never meet the stored
    records.

    Args:
        part: Which of several pipelines this is; empty where there is one.
    """

    def __init__(self, part: str = '') -> None:
        self.part = part

    def transform(self, results: dict) -> dict:
        """Add the key to the sample."""
        sample = results['data_samples']
        flip = sample.metainfo.get('flip_direction') if sample.metainfo.get('flip') else None
        set_image_key(sample, image_key(sample.metainfo['img_path'], flip or '', self.part))
        return results
