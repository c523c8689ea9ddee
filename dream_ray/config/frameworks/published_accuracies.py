"""Test accuracies that were published for the settings of presets, with the protocol behind each number.

Only numbers that a source prints are here. A preset without one may have one in a source that nobody read for it.
"""

from typing import NamedTuple

from dream_ray.config.frameworks.origins import Scale


class Source(NamedTuple):
    """Where accuracies are from, and how they were measured."""

    where: str
    protocol: str


_BEST = "best epoch on the test set; `evaluate` reports the last epoch"
_LAST = "last epoch"
_IDC = Source("README of IDC's authors", _BEST)
_DREAM = Source("DREAM, as reprinted in table 1 of DANCE (IJCAI 2024)", _BEST)
_DREAM_PLUS = Source("figure of DREAM's authors, read off to +- 0.3, after 1000 outer steps", _BEST)
_DC = Source("README of the authors of DC and DSA", _LAST)
_DM = Source("table 1 of NCFM (CVPR 2025)", _LAST)
_MTT = Source("results of FTD (CVPR 2023)", _BEST)

_ACCURACIES: dict[tuple[str, str, int], tuple[Source, dict[int, float]]] = {
    ("idc", "cifar10", 2): (_IDC, {1: 50.6, 10: 67.5, 50: 74.5}),
    ("idc", "cifar10", 1): (_IDC, {1: 36.7, 10: 58.3, 50: 69.5}),
    ("idc", "cifar100", 2): (_IDC, {10: 45.1, 20: 49.0}),
    ("idc", "svhn", 2): (_IDC, {1: 68.5, 10: 87.5, 50: 90.1}),
    ("idc", "mnist", 2): (_IDC, {1: 94.2, 10: 98.4, 50: 99.1}),
    ("idc", "fashion-mnist", 2): (_IDC, {1: 81.0, 10: 86.0, 50: 86.2}),
    ("idc", "imagenet10", 3): (_IDC, {10: 72.8, 20: 76.6}),
    ("idc", "imagenet100", 3): (_IDC, {10: 46.7, 20: 53.7}),
    ("dream", "cifar10", 2): (_DREAM, {1: 51.1, 10: 69.4, 50: 74.8}),
    ("dream", "cifar100", 2): (_DREAM, {1: 29.5, 10: 46.8, 50: 52.6}),
    ("dream", "fashion-mnist", 2): (_DREAM, {1: 81.3, 10: 86.4, 50: 86.8}),
    ("dream", "tiny-imagenet", 2): (_DREAM, {1: 10.0, 50: 29.5}),
    ("dream_plus", "cifar10", 2): (_DREAM_PLUS, {10: 69.1}),
    ("dc", "cifar10", 1): (_DC, {1: 28.3, 10: 44.9, 50: 53.9}),
    ("dc", "cifar100", 1): (_DC, {1: 12.8, 10: 25.2}),
    ("dsa", "cifar10", 1): (_DC, {1: 28.8, 10: 52.1, 50: 60.6}),
    ("dsa", "cifar100", 1): (_DC, {1: 13.9, 10: 32.3, 50: 42.8}),
    ("dm", "cifar10", 1): (_DM, {1: 26.0, 10: 48.9, 50: 63.0}),
    ("dm", "cifar100", 1): (_DM, {1: 11.4, 10: 29.7, 50: 43.6}),
    ("dm", "tiny-imagenet", 1): (_DM, {1: 3.9, 10: 12.9, 50: 24.1}),
    ("mtt", "cifar10", 1): (_MTT, {1: 46.2, 10: 65.4, 50: 71.6}),
    ("mtt", "cifar100", 1): (_MTT, {1: 24.3, 10: 39.7, 50: 47.7}),
    ("mtt", "tiny-imagenet", 1): (_MTT, {1: 8.8, 10: 23.2, 50: 28.0}),
}
"""Percent by images per class; by framework, data set and factor."""


def published_accuracy(framework: str, data: str, scale: Scale) -> tuple[float, Source] | None:
    """Returns the published accuracy in percent and its source; None: no source that was read has one."""
    source, by_ipc = _ACCURACIES.get((framework, data, scale.factor), (None, {}))
    if source is None or scale.ipc not in by_ipc:
        return None
    return by_ipc[scale.ipc], source
