"""Herding against the loop of the paper."""

import numpy as np
import pytest
import torch

from dream_ray.core.selection.herding import herding


def icarl(points_ND: np.ndarray, count: int) -> list[int]:
    """iCaRL, algorithm 4: p_k = argmin over x of |mu - (phi(x) + sum of the earlier phi(p_j)) / k|."""
    unit_ND = [point / np.sqrt((point**2).sum()) for point in points_ND]
    mean_D = sum(unit_ND) / len(unit_ND)
    chosen: list[int] = []
    for k in range(1, count + 1):
        distances = {}
        for image, point in enumerate(unit_ND):
            if image not in chosen:
                of_all = (point + sum(unit_ND[one] for one in chosen)) / k
                distances[image] = np.sqrt(((mean_D - of_all) ** 2).sum())
        chosen.append(min(distances, key=lambda image: (distances[image], image)))
    return chosen


def welling(points_ND: np.ndarray, count: int) -> list[int]:
    """Welling, ICML 2009: x_t = argmax of <w, phi(x)>, then w += mu - phi(x_t); here no image is taken twice."""
    mean_D = points_ND.mean(axis=0)
    weights_D, chosen = mean_D.copy(), []
    for _ in range(count):
        products = {image: weights_D @ point for image, point in enumerate(points_ND) if image not in chosen}
        chosen.append(max(products, key=lambda image: (products[image], -image)))
        weights_D += mean_D - points_ND[chosen[-1]]
    return chosen


@pytest.mark.parametrize(("num_images", "num_features", "count"), [(30, 5, 30), (40, 2, 25), (7, 16, 3), (1, 3, 1)])
def test_herding_is_the_loop_of_icarl_and_of_welling(num_images: int, num_features: int, count: int) -> None:
    points_ND = np.random.default_rng(num_images).normal(1, 1, (num_images, num_features))
    chosen = herding(torch.from_numpy(points_ND).float(), count).tolist()
    assert chosen == icarl(points_ND.astype(np.float32).astype(float), count)
    unit_ND = points_ND / np.linalg.norm(points_ND, axis=1, keepdims=True)
    assert chosen == welling(unit_ND, count)


def test_herding_takes_the_first_of_equal_images_and_none_twice() -> None:
    equal_ND = torch.ones(4, 3)
    assert herding(equal_ND, 4).tolist() == [0, 1, 2, 3]


def test_herding_accepts_an_image_without_features() -> None:
    points_ND = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert herding(points_ND, 2).tolist() == [3, 0]
