"""Trackers: where their detector lies, and what it is trained on."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from mmkd_plugin.utilities.clips import detector_of, detector_path, key_frames


def test_the_detector_inside_a_tracker():
    detector, tracker = nn.Module(), nn.Module()
    detector.backbone = nn.Conv2d(3, 4, 1)
    tracker.detector = detector
    assert (detector_path(tracker), detector_of(tracker)) == ('detector.', detector)
    assert (detector_path(detector), detector_of(detector)) == ('', detector)
    tracker.backbone = nn.Conv2d(3, 4, 1)
    assert (detector_path(tracker), detector_of(tracker)) == ('', tracker)


def test_the_key_frame_of_each_clip_is_taken():
    clips = torch.arange(12.0).reshape(2, 3, 2, 1, 1)

    def clip(key):
        return SimpleNamespace(key_frames_inds=[key], get_key_frames=lambda: [f'frame {key}'])

    images, samples = key_frames(clips, [clip(2), clip(0)])
    assert images.flatten().tolist() == [4, 5, 6, 7] and samples == ['frame 2', 'frame 0']


def test_images_stay_as_they_are():
    images, samples = torch.zeros(2, 3, 4, 4), ['a', 'b']
    found = key_frames(images, samples)
    assert found[0] is images and found[1] is samples
    assert key_frames(torch.zeros(2, 1, 3, 4, 4), None)[1] is None
