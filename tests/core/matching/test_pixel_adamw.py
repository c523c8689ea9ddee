"""AdamW of the pixels beside `torch.optim.AdamW` on the difference from the initial images."""

import pytest
import torch

from dream_ray.core.matching.pixel_adamw import adamw_constants, cosine_factor, first_momenta, pixel_adamw

STEPS = 29


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
@pytest.mark.parametrize("is_cosine", [False, True])
def test_it_is_adamw_on_the_difference(betas: tuple[float, float], is_cosine: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    start, target = (torch.rand(2, 1, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    delta = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.AdamW([delta], lr=0.01, weight_decay=0.3, betas=betas)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    images, momenta = start, first_momenta(start)
    for step in range(STEPS):
        optimizer.zero_grad()
        ((start + delta - target) ** 3).sum().backward()
        optimizer.step()
        if is_cosine:
            schedule.step()
        lr = 0.01 * (cosine_factor(step, STEPS) if is_cosine else 1)
        constants = torch.from_numpy(adamw_constants(step + 1, lr=lr, weight_decay=0.3, betas=betas))
        images, momenta = pixel_adamw(images, momenta, 3 * (images - target) ** 2, constants, betas)
        torch.testing.assert_close(images, start + delta.detach(), rtol=1e-10, atol=1e-12)
    assert (images - start).abs().max() > 0.1
