"""The discriminator by arithmetic done by hand; :mod:`methods.test_holistic_loss` holds it to the authors' numbers."""

from __future__ import annotations

import pytest
import torch
from _helpers.golden import assert_near
from torch import nn

from mmkd_plugin.models.discriminator import Discriminator, SelfAttention, SpectralConv2d, widths_for
from mmkd_plugin.registry import MODELS


class TestDiscriminator:
    def test_it_judges_the_image_and_the_probabilities(self):
        # A 2 x 2 image on a 4 x 4 map with aligned corners rises evenly. Logits 0 and log 3: 1/4 and 3/4.
        image = torch.tensor([[[[0.0, 3.0], [6.0, 9.0]]]])
        logits = torch.tensor([0.0, 1.0986123]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
        joint = Discriminator(2, widths=(4,), image_channels=1).joint(logits, image)
        expected = [[0.0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]]
        assert_near(joint[0, 0], torch.tensor(expected), 1e-6)
        assert_near(joint[0, 1:], torch.tensor([0.25, 0.75]).view(2, 1, 1).expand(2, 4, 4), 1e-6)

    def test_number_of_parameters_for_cityscapes(self):
        discriminator = Discriminator(19, conditional=False)
        trained = sum(parameter.numel() for parameter in discriminator.parameters())
        vectors = sum(item.numel() for name, item in discriminator.named_buffers() if name[-2:] in ('.u', '.v'))
        assert (trained, trained + vectors) == (3191721, 3200153)

    @pytest.mark.parametrize('size', [(64, 64), (65, 65), (64, 128), (97, 71), (130, 130)])
    def test_any_larger_map_gives_one_finite_score_an_image(self, size):
        scores = Discriminator(4, conditional=False, widths=(4, 4, 8, 8))(torch.randn(2, 4, *size))
        assert scores.shape == (2,)
        assert torch.isfinite(scores).all()

    def test_score_of_a_larger_map_is_the_mean_over_windows(self):
        # Without stages the last convolution sees the 4 x 5 cells themselves, in two windows of 4 x 4.
        discriminator = Discriminator(3, conditional=False, widths=(3,)).eval()
        discriminator.stages = nn.ModuleList()
        feature = torch.randn(1, 3, 4, 5)
        expected = (discriminator.score(feature[..., :4]) + discriminator.score(feature[..., 1:])) / 2
        assert_near(discriminator.score(feature), expected, 1e-5)

    @pytest.mark.parametrize('conditional', [True, False])
    @pytest.mark.parametrize('size', [(1, 1), (3, 40), (15, 16)])
    def test_smaller_map_is_enlarged(self, size, conditional):
        discriminator = Discriminator(2, conditional, widths=(8, 8))
        logits, image = torch.randn(1, 2, *size), torch.randn(1, 3, 8, 8)
        joint = discriminator.joint(logits, image)
        larger = nn.functional.interpolate(joint, (16, max(16, size[1])), mode='bilinear', align_corners=False)
        state = discriminator.state_dict()
        state = {key: value.clone() for key, value in state.items()}
        score = discriminator.score(joint)
        discriminator.load_state_dict(state)
        assert torch.equal(score, discriminator.score(larger))

    @pytest.mark.parametrize(
        ('side', 'stages'), [(128, 4), (64, 4), (45, 4), (33, 4), (32, 3), (17, 3), (16, 2), (9, 2), (8, 1), (1, 1)]
    )
    def test_no_map_is_enlarged_by_two_where_stages_can_be_left_out(self, side, stages):
        assert widths_for(side) == (64, 128, 256, 512)[:stages]
        smallest = Discriminator(2, widths=widths_for(side)).smallest
        assert stages == 1 or smallest < 2 * side
        assert stages == 4 or 2 * smallest >= 2 * side

    def test_image_of_the_size_of_the_map_is_left_alone(self):
        discriminator, image = Discriminator(2, widths=(4,)), torch.randn(1, 3, 6, 5)
        assert discriminator.seen(image, torch.zeros(1, 2, 6, 5)) is image
        assert discriminator.seen(image, torch.zeros(1, 2, 6, 6)).shape == (1, 3, 6, 6)
        assert discriminator.seen(image, torch.zeros(1, 2, 7, 5)).shape == (1, 3, 7, 5)

    def test_other_classes_are_refused(self):
        with pytest.raises(ValueError, match='built for 3 classes, but the logits have 4'):
            Discriminator(3, widths=(8,))(torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 8, 8))

    def test_it_is_registered(self):
        assert MODELS.module_dict['Discriminator'] is Discriminator

    def test_state_resumes_exactly(self):
        torch.manual_seed(3)
        logits = torch.randn(2, 4, 20, 20)
        first, second = (Discriminator(4, conditional=False, widths=(8, 8)) for _ in range(2))
        first(logits)
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(logits), second(logits))


class TestParts:
    def test_spectral_norm_converges_to_the_largest_singular_value(self):
        conv = SpectralConv2d(2, 3, 1, stride=1, padding=0)
        with torch.no_grad():
            conv.bias.zero_()
            # Singular values 5 and 2.
            conv.weight.copy_(torch.tensor([[3.0, 0.0], [4.0, 0.0], [0.0, 2.0]]).view(3, 2, 1, 1))
            for _ in range(50):
                output = conv(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
        assert_near(output.flatten(), torch.tensor([0.6, 0.8, 0.0]), 1e-6)

    def test_spectral_norm_has_no_gradient_along_the_weight(self):
        # The normalised weight does not change with the length of the weight.
        conv = SpectralConv2d(2, 3, 3, 1, 1)
        conv(torch.randn(1, 2, 5, 5)).square().sum().backward()
        along = (conv.weight * conv.weight.grad).sum()
        assert_near(along, torch.tensor(0.0), 1e-4, floor=conv.weight.grad.norm().item())

    def test_attention_starts_as_the_identity(self):
        feature = torch.randn(2, 8, 3, 4)
        assert torch.equal(SelfAttention(8)(feature), feature)

    def test_attention_by_hand(self):
        # Two positions with q = (0, 1), k = (log 3, 0), v = (1, 5). Position 0 sees energies (0, 0): mean 3. Position 1
        # sees (log 3, 0): 3/4 * 1 + 1/4 * 5 = 2.
        attention = SelfAttention(3)
        with torch.no_grad():
            for index, conv in enumerate((attention.query, attention.key)):
                conv.weight.copy_(nn.functional.one_hot(torch.tensor([index]), 3).view(1, 3, 1, 1))
                conv.bias.zero_()
            attention.value.weight.copy_(torch.tensor([[0.0, 0, 1]] * 3).view(3, 3, 1, 1))
            attention.value.bias.zero_()
            attention.gamma.fill_(2.0)
        feature = torch.tensor([[0.0, 1.0], [1.0986123, 0.0], [1.0, 5.0]]).view(1, 3, 1, 2)
        assert_near(attention(feature) - feature, torch.tensor([6.0, 4.0]).expand(1, 3, 1, 2), 1e-6)
