"""Images without labels, mixed into the batches of a labelled data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.dataset import Compose
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS as ROOT_SAMPLERS
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.structures import PixelData
from torch.utils.data import BatchSampler, Dataset

from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS
from mmkd_plugin.utilities.unlabelled import folders_of, mark_unlabelled

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
IGNORED = 255


@TRANSFORMS.register_module()
class NoLabels(BaseTransform):
    """In the place of ``LoadAnnotations``: a label map, the size of the image, in which every pixel is ignored (255).

    The transforms behind it so find what they look for; a crop that is drawn again until it holds several classes
    (``cat_max_ratio``) takes the last one drawn.
    """

    def transform(self, results: dict) -> dict:
        """Add the map."""
        results['gt_seg_map'] = np.full(results['img'].shape[:2], IGNORED, np.uint8)
        results['seg_fields'].append('gt_seg_map')
        return results


@DATASETS.register_module()
class UnlabelledImages(Dataset):
    """All images below some folders, each with a label map in which no pixel counts.

    Args:
        images: A folder, or several; files that begin with a dot are passed over.
        pipeline: Transforms, from the loading of the image to a data sample.

    Raises:
        DistillError: If a folder is missing or holds no image.
    """

    def __init__(self, images: str | Sequence[str], pipeline: Sequence[Any]) -> None:
        self.paths = [path for folder in folders_of(images) for path in _images_in(folder)]
        self.pipeline = Compose(pipeline)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One image; where the pipeline refuses it, the next that it takes."""
        for step in range(len(self)):
            path = self.paths[(index + step) % len(self)]
            # What a segmentation pipeline expects beside the path; without labels there is nothing to map.
            data = self.pipeline(dict(img_path=path, seg_fields=[], label_map=None, reduce_zero_label=False))
            if data is not None:
                return _marked(data)
        raise DistillError(
            'The pipeline of the unlabelled images takes none of them; set distill.unlabelled.pipeline to one that '
            'filters nothing.'
        )


@DATASETS.register_module()
class MixedDataset(Dataset):
    """A labelled data set, and images without labels under the numbers -1, -2 and so on.

    Its length and everything else that is asked of it are the labelled one's.

    Args:
        dataset: The labelled data set, its config or built.
        unlabelled: The other, likewise.
    """

    def __init__(self, dataset: Any, unlabelled: Any) -> None:
        # The images first: a missing folder is told before an annotation file is read.
        self.unlabelled = _built(unlabelled)
        self.dataset = _built(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.dataset[index] if index >= 0 else self.unlabelled[-1 - index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or 'dataset' not in vars(self):
            raise AttributeError(name)
        return getattr(self.dataset, name)


@DATA_SAMPLERS.register_module()
class MixedBatchSampler:
    """Batches of labelled images, each followed by a number of images without labels from a :class:`MixedDataset`.

    Which labelled images make up a batch, and how many batches an epoch has, is as without the others. These come in an
    order of their own, each once before any comes again, spread over the processes; the order depends on the seed and
    the number of batches before alone, so that a resumed run goes on in it.

    Args:
        sampler: Of the labelled images; it knows the data set.
        batch_size: Labelled images in a batch.
        unlabelled: Images without labels in a batch.
        batch_sampler: Config of another batch sampler for the labelled images.
        drop_last: Whether a smaller last batch of labelled images is left out.

    Raises:
        DistillError: If the sampler is of another data set.
    """

    def __init__(
        self,
        sampler: Any,
        batch_size: int,
        unlabelled: int,
        batch_sampler: Mapping[str, Any] | None = None,
        drop_last: bool = False,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.unlabelled = unlabelled
        self.batches = (
            BatchSampler(sampler, batch_size, drop_last)
            if batch_sampler is None
            else ROOT_SAMPLERS.build(dict(batch_sampler), default_args=dict(sampler=sampler, batch_size=batch_size))
        )
        images = getattr(getattr(sampler, 'dataset', None), 'unlabelled', None)
        if not images:
            raise DistillError(
                f'MixedBatchSampler finds no images without labels behind {type(sampler).__name__}; sample a '
                "MixedDataset with a sampler that knows its data set, such as dict(type='InfiniteSampler')."
            )
        self.images = len(images)
        self.seed = int(getattr(sampler, 'seed', None) or 0)
        self.rank, self.ranks = get_dist_info()
        self._done = 0
        self._round, self._order = -1, torch.empty(0)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        # A sampler that knows the epoch is set to it also where a run is resumed; an endless one starts but once.
        epoch = getattr(self.sampler, 'epoch', None)
        if epoch is not None:
            self._done = epoch * len(self)
        for batch in self.batches:
            first = self._done * self.unlabelled
            self._done += 1
            yield [*batch, *(-1 - self._image(first + index) for index in range(self.unlabelled))]

    def _image(self, index: int) -> int:
        """The image at a place of this process's order."""
        rounds, place = divmod(index * self.ranks + self.rank, self.images)
        if rounds != self._round:
            generator = torch.Generator().manual_seed(self.seed + rounds)
            self._round, self._order = rounds, torch.randperm(self.images, generator=generator)
        return int(self._order[place])


def _images_in(folder: str) -> list[str]:
    """The paths of the images of a folder and those inside it, sorted."""
    endings = (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES))
    names = fileio.list_dir_or_file(folder, list_dir=False, suffix=endings, recursive=True)
    found = [fileio.join_path(folder, name) for name in sorted(names)]
    if not found:
        raise DistillError(
            f'The folder of unlabelled images "{folder}" holds none ({", ".join(SUFFIXES)}); set '
            'distill.unlabelled.images to another.'
        )
    return found


def _built(dataset: Any) -> Any:
    """A data set from its config, ready to be read."""
    built = ROOT_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
    if hasattr(built, 'full_init'):
        built.full_init()
    return built


def _marked(data: Any) -> dict[str, Any]:
    """What a pipeline gave, told apart from labelled images, with a label map where it has none."""
    sample = data.get('data_samples') if isinstance(data, dict) else None
    if sample is None:
        raise DistillError(
            'The pipeline of the unlabelled images gives no data sample; end distill.unlabelled.pipeline with '
            "dict(type='PackSegInputs')."
        )
    mark_unlabelled(sample)
    if 'gt_sem_seg' not in sample:
        size = data['inputs'].shape[-2:]
        sample.gt_sem_seg = PixelData(data=torch.full((1, *size), IGNORED, dtype=torch.int64))
    return data
