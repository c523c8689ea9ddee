"""Random crops: their law, and cutting and padding against torchvision and a loop."""

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resized_crop

from dream_ray.core import rng
from dream_ray.core.images.random_crops import cut, draw_boxes, pad_around

SIDE = 40


def test_boxes_lie_in_the_image_and_are_uniform_in_area_and_position() -> None:
    tops, lefts, sides = draw_boxes(2000, 5, SIDE, rng.stream(0, "crops")).reshape(-1, 3).T
    assert sides.min() >= 11  # sqrt(0.08) * 40
    assert sides.max() == SIDE
    for first in (tops, lefts):
        assert first.min() == 0
        assert (first + sides).max() == SIDE
        inner = sides < SIDE
        # uniform on 0 ... SIDE - side: the mean of (first + 1/2) / (SIDE - side + 1) is 1/2
        relative = (first[inner] + 0.5) / (SIDE - sides[inner] + 1)
        assert abs(relative.mean() - 0.5) < 0.01
    assert abs((sides**2).mean() / SIDE**2 - 0.54) < 0.01  # the mean of 8 % and 100 %


def test_every_image_and_crop_has_a_box_of_its_own() -> None:
    boxes_NM3 = draw_boxes(20, 5, SIDE, rng.stream(0, "crops"))
    assert boxes_NM3.shape == (20, 5, 3)
    assert len({tuple(box) for box in boxes_NM3.reshape(-1, 3).tolist()}) > 90


def test_cut_is_the_resized_crop_of_torchvision() -> None:
    images_NCHW = torch.from_numpy(np.random.default_rng(1).random((3, 2, SIDE, SIDE), dtype=np.float32))
    boxes_N3 = np.array([[0, 0, SIDE], [5, 9, 12], [28, 1, 11]])
    expected = [
        resized_crop(image, *box[:2], box[2], box[2], [16, 16], InterpolationMode.BILINEAR, antialias=True)
        for image, box in zip(images_NCHW, boxes_N3.tolist(), strict=True)
    ]
    assert torch.equal(cut(images_NCHW, boxes_N3, 16), torch.stack(expected))


def test_padding_lies_around_the_image() -> None:
    padded = pad_around(torch.ones(1, 1, 3, 3), 8)
    expected = torch.zeros(8, 8)
    expected[2:5, 2:5] = 1  # an odd rest goes to the right and the bottom
    assert torch.equal(padded[0, 0], expected)
    assert pad_around(torch.ones(1, 1, 8, 8), 8).shape == (1, 1, 8, 8)
