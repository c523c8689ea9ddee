"""AdamW of the pixels beside `torch.optim.AdamW` on the difference from the initial images."""

import torch

from dream_ray.core.matching.pixel_adamw import corrections, first_momenta, pixel_adamw


def test_it_is_adamw_on_the_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    start, target = (torch.rand(2, 1, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    delta = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.AdamW([delta], lr=0.01, weight_decay=0.3)
    images, momenta = start, first_momenta(start)
    for step in range(1, 30):
        optimizer.zero_grad()
        ((start + delta - target) ** 3).sum().backward()
        optimizer.step()
        gradient = 3 * (images - target) ** 2
        images, momenta = pixel_adamw(
            images, momenta, gradient, torch.from_numpy(corrections(step)), lr=0.01, weight_decay=0.3
        )
        torch.testing.assert_close(images, start + delta.detach(), rtol=1e-10, atol=1e-12)
    assert (images - start).abs().max() > 0.1
