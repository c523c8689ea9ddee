"""Published values of presets, with the source of each row.

This table is the second opinion of the tests: it shares no code and no numbers with the package. `ALL` values hold for
every preset whose name matches.
"""

from typing import Any, NamedTuple


class Row(NamedTuple):
    """Values of some presets.

    Attributes:
        presets: Regular expression of whole names.
        source: Where the values are from.
        values: Values by path.
    """

    presets: str
    source: str
    values: dict[str, Any]


DC_CODE = "repository of DC, DSA and DM"
IDC_CODE = "IDC's argument.py, --reproduce"
DREAM_CODE = "DREAM's argument.py, --reproduce"
SIZES = "(1|10|20|50)"
IDC_LIKE = "(idc-|idc-i-|dream-|)"
ON_IMAGENET = r"imagenet(10|100|1k)-ipc\d+"
SMALL = "(cifar10|cifar100|svhn|mnist|fashion-mnist)"
WITH_DREAM = rf"(dream-|)({SMALL}|tiny-imagenet|imagenet10|imagenet100)-ipc{SIZES}"
CIFAR = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]}
PUBLISHED_MEANS: list[tuple[str, str, dict[str, list[float]]]] = [
    (rf"(dc-|dsa-|dm-)cifar10-ipc{SIZES}", f"{DC_CODE}, get_dataset", CIFAR),
    (rf"mtt-(cifar10|cifar100)-ipc{SIZES}", "MTT's get_dataset", CIFAR),
    (rf"{IDC_LIKE}(cifar10|cifar100)-ipc{SIZES}", "IDC's and DREAM's data.py", CIFAR),
    (
        rf"(dc-|dsa-|dm-)cifar100-ipc{SIZES}",
        f"{DC_CODE}, get_dataset",
        {"mean": [0.5071, 0.4866, 0.4409], "std": [0.2673, 0.2564, 0.2762]},
    ),
    (
        rf".*svhn-ipc{SIZES}",
        f"{DC_CODE}, get_dataset; IDC's data.py",
        {"mean": [0.4377, 0.4438, 0.4728], "std": [0.1980, 0.2010, 0.1970]},
    ),
    (
        rf"(?!.*fashion).*mnist-ipc{SIZES}",
        f"{DC_CODE}, get_dataset; IDC's data.py",
        {"mean": [0.1307], "std": [0.3081]},
    ),
    (rf".*fashion-mnist-ipc{SIZES}", f"{DC_CODE}, get_dataset; IDC's data.py", {"mean": [0.2861], "std": [0.3530]}),
    (
        rf".*(imagenet(10|100|)-ipc{SIZES}|(?<!tiny-)imagenet(10|100|1k)-ipc{SIZES}-.*)",
        f"{DC_CODE} and MTT, get_dataset; IDC's and DREAM's data.py; CIM's and torchvision's ImageNet",
        {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    ),
]
PIXEL_RATES: list[tuple[str, str, float]] = [
    (f"(dc-|dsa-){SMALL}-ipc{SIZES}", f"{DC_CODE}, lr_img", 0.1),
    (f"dm-.*-ipc{SIZES}", f"{DC_CODE}, main_DM.py and its README", 1.0),
    (f"{IDC_LIKE}(cifar10|cifar100|svhn)-ipc1", "5e-3 * 1 / 10", 5e-4),
    (f"{IDC_LIKE}(cifar10|cifar100|svhn)-ipc10", "5e-3", 5e-3),
    (f"{IDC_LIKE}(cifar100)-ipc20", "5e-3 * 20 / 10", 1e-2),
    (f"{IDC_LIKE}(cifar10|cifar100|svhn)-ipc50", "5e-3 * 50 / 10", 2.5e-2),
    (f"{IDC_LIKE}mnist-ipc1", "1e-4 * 1 / 10, base side 28", 1e-5),
    (f"{IDC_LIKE}mnist-ipc10", "1e-4, base side 28", 1e-4),
    (f"{IDC_LIKE}mnist-ipc50", "1e-4 * 50 / 10, base side 28", 5e-4),
    (f"{IDC_LIKE}fashion-mnist-ipc1", "1e-4 * 1 / 10 * (28 / 32)^2", 7.65625e-6),
    (f"{IDC_LIKE}fashion-mnist-ipc10", "1e-4 * (28 / 32)^2", 7.65625e-5),
    (f"{IDC_LIKE}fashion-mnist-ipc50", "1e-4 * 50 / 10 * (28 / 32)^2", 3.828125e-4),
    (f"{IDC_LIKE}tiny-imagenet-ipc1", "5e-3 * 1 / 10 * (64 / 32)^2", 2e-3),
    (f"{IDC_LIKE}tiny-imagenet-ipc10", "5e-3 * (64 / 32)^2", 2e-2),
    (f"{IDC_LIKE}tiny-imagenet-ipc50", "1e-6 * 50 / 10 * (64 / 32)^2", 2e-5),
    (f"{IDC_LIKE}imagenet10-ipc10", "3e-3, base side 224", 3e-3),
    (f"{IDC_LIKE}imagenet10-ipc20", "3e-3 * 20 / 10, base side 224", 6e-3),
    (f"{IDC_LIKE}imagenet100-ipc10", "1e-3, base side 224", 1e-3),
    (f"{IDC_LIKE}imagenet100-ipc20", "1e-3 * 20 / 10, base side 224", 2e-3),
    (r"imagenet(100|1k)-ipc1-dream-plus-frozen", "1e-3 * 1 / 10, base side 224, by rule on ImageNet-1K", 1e-4),
    (r"imagenet(100|1k)-ipc10-dream-plus-frozen", "1e-3, base side 224, by rule on ImageNet-1K", 1e-3),
    (r"imagenet(100|1k)-ipc50-dream-plus-frozen", "1e-3 * 50 / 10, base side 224, by rule on ImageNet-1K", 5e-3),
    (r"imagenet10-ipc1-dream-plus-frozen", "3e-3 * 1 / 10, base side 224", 3e-4),
    (r"imagenet10-ipc10-dream-plus-frozen", "3e-3, base side 224", 3e-3),
    (r"imagenet10-ipc50-dream-plus-frozen", "3e-3 * 50 / 10, base side 224", 1.5e-2),
    (r"tiny-imagenet-ipc1-dream-plus-frozen", "as DREAM+", 2e-3),
    (r"tiny-imagenet-ipc10-dream-plus-frozen", "as DREAM+", 2e-2),
    (r"tiny-imagenet-ipc50-dream-plus-frozen", "as DREAM+", 2e-5),
]
CONVNET = {"name": "convnet", "options.width": 128, "options.norm": "instance"}
DSA_ALL, DSA_DIGITS = "color|crop|cutout|flip|scale|rotate", "color|crop|cutout|scale|rotate"


def in_section(section: str, **values: Any) -> dict[str, Any]:
    return {f"{section}.{name}": value for name, value in values.items()}


def augmented(strategy: str, sections: tuple[str, ...]) -> dict[str, Any]:
    return {f"{section}.augmentation": strategy for section in sections}


def evaluated(published_epochs: int) -> dict[str, Any]:
    """E + 1 epochs, of which the first E / 2 + 2 have the first learning rate."""
    first = {300: 152, 1000: 502}[published_epochs]
    return in_section("evaluation", epochs=published_epochs + 1, lr_milestones=[first / (published_epochs + 1)])


ON_SYNTHETIC = ("matching", "update", "evaluation")
# MTT's commands: ipc, student steps, expert epochs, latest start, lr of pixels and of the step size, step size, ZCA,
# batch.
MTT: dict[str, list[tuple[Any, ...]]] = {
    "cifar10": [
        (1, 50, 2, 2, 100, 1e-7, 0.01, True, None),
        (10, 30, 2, 20, 100, 1e-5, 0.001, True, None),
        (50, 30, 2, 40, 1000, 1e-5, 0.001, False, None),
    ],
    "cifar100": [
        (1, 20, 3, 20, 1000, 1e-5, 0.01, True, None),
        (10, 20, 2, 20, 1000, 1e-5, 0.01, False, None),
        (50, 80, 2, 40, 1000, 1e-5, 0.01, True, 125),
    ],
    "tiny-imagenet": [
        (1, 10, 2, 10, 10_000, 1e-4, 0.01, False, None),
        (10, 20, 2, 40, 10_000, 1e-4, 0.01, False, 200),
        (50, 20, 2, 40, 10_000, 1e-4, 0.01, False, 300),
    ],
}


def mtt_row(data: str, row: tuple[Any, ...]) -> Row:
    ipc, steps, epochs, start, pixel_lr, lr, size, zca, batch = row
    trajectory = in_section(
        "trajectory",
        student_steps=steps,
        expert_steps=epochs,
        max_start=start,
        step_size_lr=lr,
        step_size=size,
        student_batch=batch,
    )
    source = "commands of MTT's author, DC-BENCH's methods/tm/readme.md"
    return Row(f"mtt-{data}-ipc{ipc}", source, {**trajectory, "pixels.lr": pixel_lr, "data.zca": zca})


IDC_EPOCHS = {1: 3000, 4: 2000, 10: 2000, 40: 1500, 50: 1500, 200: 1000}
"""IDC's epochs on ImageNet-10 by decoded images of a class; ImageNet-100 has two thirds, in hundreds."""

ROWS = [
    *(
        Row(presets, source, {f"data.normalisation.{name}": value for name, value in numbers.items()})
        for presets, source, numbers in PUBLISHED_MEANS
    ),
    *(Row(presets, source, {"pixels.lr": rate}) for presets, source, rate in PIXEL_RATES),
    Row(
        rf".*(cifar10|cifar100|svhn|mnist)-ipc{SIZES}(-cim|-statistics)?",
        "all papers: ConvNet-3",
        in_section("network", **CONVNET, **{"options.depth": 3}),
    ),
    Row(
        rf".*tiny-imagenet-ipc{SIZES}(-.*)?",
        "DM and DREAM: ConvNet-4; MTT's command for 50 images per class",
        in_section("network", **CONVNET, **{"options.depth": 4}),
    ),
    Row(
        rf".*imagenet(10|100)-ipc{SIZES}",
        IDC_CODE,
        in_section("network", **{"name": "resnetap10", "options.norm": "instance"}),
    ),
    # DC, DSA
    Row(
        "(dc|dsa)-.*",
        f"{DC_CODE}, main.py",
        {
            "outer_steps": 1000,
            **in_section("selection", strategy="random", num_clusters=256, in_passes=False),
            **in_section("weights", feature=0, gradient=1),
            **in_section("matching", objective="bidirectional", distance="cosine", biases=False, classifier=True),
            **in_section("pixels", momentum=0.5, coupling="joint", space="normalised"),
            "source.kind": "synthetic",
            **in_section("update", warmup_epochs=0, num_images=None, batch_size=256, lr=0.01),
            **in_section("update", momentum=0, weight_decay=0, cutmix_probability=0),
        },
    ),
    *(
        Row(
            f"(dc|dsa)-.*-ipc{ipc}",
            f"{DC_CODE}, get_loops",
            {"inner_steps": matches, "update.epochs": epochs},
        )
        for ipc, matches, epochs in ((1, 1, 1), (10, 10, 50), (50, 50, 10))
    ),
    Row("dc-.*", f"{DC_CODE}, main.py", {"initialisation.strategy": "noise"}),
    Row("dsa-.*", f"{DC_CODE}, README", {"initialisation.strategy": "random"}),
    Row("dc-.*", f"{DC_CODE}, method DC augments nothing", augmented("none", ("matching", "update"))),
    Row("dc-(?!mnist).*", f"{DC_CODE}, get_daparam", {**evaluated(300), "evaluation.augmentation": "none"}),
    Row(
        "dc-mnist-.*",
        f"{DC_CODE}, get_daparam: crop, scale or rotation, and 1000 epochs",
        {**evaluated(1000), "evaluation.augmentation": "crop_scale_rotate"},
    ),
    Row("dsa-.*", f"{DC_CODE}, README", evaluated(1000)),
    Row("dsa-(cifar|fashion).*", f"{DC_CODE}, README: for natural images", augmented(DSA_ALL, ON_SYNTHETIC)),
    Row("dsa-(mnist|svhn).*", f"{DC_CODE}, README: for digits", augmented(DSA_DIGITS, ON_SYNTHETIC)),
    # DM
    Row(
        "dm-.*",
        f"{DC_CODE}, main_DM.py: 20,000 iterations",
        {
            "outer_steps": 200,
            "inner_steps": 100,
            "initialisation.strategy": "random",
            **in_section("selection", strategy="random", num_clusters=256, in_passes=False),
            **in_section("weights", feature=1, gradient=0),
            **in_section("matching", objective="bidirectional", distance="mse"),
            **in_section("pixels", momentum=0.5, coupling="joint", space="normalised"),
            "source.kind": "random",
            **evaluated(1000),
        },
    ),
    Row("dm-(cifar|fashion|tiny).*", f"{DC_CODE}, README", augmented(DSA_ALL, ("matching", "evaluation"))),
    Row("dm-(mnist|svhn).*", f"{DC_CODE}, README: for digits", augmented(DSA_DIGITS, ("matching", "evaluation"))),
    Row(
        "(dc|dsa|dm|mtt)-.*",
        f"{DC_CODE}, evaluate_synset",
        in_section(
            "evaluation",
            batch_size=256,
            lr_decay=0.1,
            momentum=0.9,
            weight_decay=5e-4,
            cutmix_probability=0,
            random_resized_crop=False,
            restart_momentum=True,
        ),
    ),
    Row("(dc|dsa|dm)-.*", f"{DC_CODE}, lr_net", {"evaluation.lr": 0.01}),
    # MTT
    *(mtt_row(data, row) for data, rows in MTT.items() for row in rows),
    Row(
        "mtt-.*",
        "MTT's buffer.py and distill.py: 5,000 iterations, 100 experts",
        {
            "outer_steps": 50,
            "inner_steps": 100,
            "initialisation.strategy": "random",
            "selection.strategy": "random",
            "matching.objective": "trajectory",
            **in_section("pixels", momentum=0.5, coupling="joint", space="normalised"),
            "source.kind": "expert",
            **in_section("update", warmup_epochs=0, epochs=1, num_images=None, batch_size=256, lr=0.01),
            **in_section("update", momentum=0, weight_decay=0, cutmix_probability=0),
            "trajectory.num_experts": 100,
            "evaluation.lr": None,
            **evaluated(1000),
            **augmented(DSA_ALL, ON_SYNTHETIC),
        },
    ),
    Row(
        ".*-cim",
        "CIM's condense.py and argument.py",
        {
            "outer_steps": 1,
            "inner_steps": 200,
            "decode": "single",
            **in_section("initialisation", strategy="easy", score="cross_entropy", candidates=300, crops=0),
            **in_section("weights", feature=1, gradient=0),
            **in_section("matching", objective="bidirectional", distance="l1_mean", pairing="anchor"),
            "matching.augmentation": "crop_cutout_flip",
            **in_section("pixels", lr=0.01, optimizer="adamw", weight_decay=0.01, space="unit"),
            "source.kind": "frozen",
        },
    ),
    *(Row(f".*-ipc{n}-cim", "all tiles of a class at once", {"batch_synthetic_max": 4 * n}) for n in (1, 10, 50)),
    Row(
        rf"{ON_IMAGENET}-cim",
        "CIM's scripts: --depth -4 of ResNet-18 at 224 px; by rule on the subsets",
        {"matching.feature_layer": "layer2"},
    ),
    Row(
        ".*-statistics",
        "LPLD's recover/data_synthesis_class.py and its scripts; RDED's crops of 300 images",
        {
            "inner_steps": 1,
            "decode": "single",
            **in_section("initialisation", strategy="easy", score="cross_entropy", candidates=300, crops=5),
            **in_section("weights", gradient=0, label=1),
            **in_section("matching", objective="bidirectional", pairing="statistics"),
            **in_section("pixels", optimizer="adamw", betas=[0.5, 0.9], schedule="cosine", space="unit"),
            "source.kind": "frozen",
        },
    ),
    *(
        Row(
            f"{data}-ipc{SIZES}-statistics",
            source,
            {
                "outer_steps": steps,
                "matching.augmentation": augmentation,
                "weights.feature": weight,
                "pixels.lr": rate * 0.226,
            },
        )
        for data, source, steps, augmentation, weight, rate in (
            ("imagenet(10|100|1k)", "LPLD's scripts/imagenet1k_recover.sh", 4000, "flip_resize", 0.01, 0.25),
            ("tiny-imagenet", "LPLD's scripts/tiny_recover.sh", 4000, "flip_resize", 0.05, 0.1),
            ("cifar10", "SRe2L's recover_cifar.sh for CIFAR-100; shifts by up to 4 px", 1000, "crop", 0.01, 0.25),
        )
    ),
    *(Row(f".*-ipc{n}-statistics", "all images of a class at once", {"batch_synthetic_max": n}) for n in (1, 10, 50)),
    # All forms at networks that were trained before
    Row(f"{ON_IMAGENET}-.*", "CIM, RDED, FADRM: torchvision's ResNet-18", {"network.name": "torchvision:resnet18"}),
    Row(
        f"{ON_IMAGENET}-.*",
        "IDC's evaluation on ImageNet",
        {
            **in_section("evaluation", lr_decay=0.2, lr_milestones=[2 / 3, 5 / 6], momentum=0.9),
            **in_section("evaluation", cutmix_probability=1, augmentation="flip", random_resized_crop=True),
            "evaluation.restart_momentum": False,
        },
    ),
    Row("imagenet1k-.*", "300 epochs on ImageNet-1K: CIM, RDED, FADRM", {"evaluation.epochs": 300}),
    *(
        Row(
            f"imagenet{classes}-ipc{ipc}-{form}", f"IDC's epochs for {decoded} decoded images", {"evaluation.epochs": n}
        )
        for form, factor in (("(cim|dream-plus-frozen|easy)", 2), ("statistics", 1))
        for classes, epochs in ((10, IDC_EPOCHS), (100, {of: n * 2 // 300 * 100 for of, n in IDC_EPOCHS.items()}))
        for ipc in (1, 10, 50)
        for decoded, n in ((ipc * factor**2, epochs[ipc * factor**2]),)
    ),
    Row(
        f"imagenet(100|1k)-ipc{SIZES}-.*",
        "IDC's condense_mp.py",
        in_section("evaluation", batch_size=128, lr=0.1, weight_decay=1e-4),
    ),
    Row(
        f"imagenet10-ipc{SIZES}-.*",
        IDC_CODE,
        in_section("evaluation", batch_size=64, lr=0.01, weight_decay=5e-4),
    ),
    Row(
        ".*-easy",
        "CIM's condense.py: the lowest cross-entropy of 300 images, whole; PCA: no synthesis",
        {
            "outer_steps": 0,
            **in_section("initialisation", strategy="easy", score="cross_entropy", candidates=300, crops=0),
        },
    ),
    Row(
        ".*-(dream-plus-frozen|easy)",
        f"DREAM+'s code, and {IDC_CODE}",
        {
            "batch_synthetic_max": 128,
            "decode": "single",
            "initialisation.warmup_epochs": 1,
            **in_section("matching", objective="bidirectional", biases=False, classifier=False),
            "matching.augmentation": "color_crop_cutout",
            **in_section("pixels", momentum=0.5, coupling="sequential", space="unit"),
            **in_section("selection", strategy="representative", per_cluster=1, interval=10, in_passes=True),
            **in_section("update", warmup_epochs=1, epochs=1, num_images=2000, batch_size=128, lr=0.01),
            **in_section("update", momentum=0.9, weight_decay=5e-4, cutmix_probability=0.5, augmentation="color_crop"),
            **in_section("weights", feature=1, gradient=1),
        },
    ),
    Row(".*-dream-plus-frozen", "DREAM+'s code", {"initialisation.strategy": "representative"}),
    Row(
        f"{ON_IMAGENET}-(dream-plus-frozen|easy)",
        f"{DREAM_CODE}: class_batch_size 128",
        in_section("selection", num_clusters=128, rule="each"),
    ),
    Row(
        ".*tiny-imagenet-.*-dream-plus-frozen",
        "DREAM+'s code on Tiny-ImageNet",
        {**in_section("selection", num_clusters=64, rule="any"), "matching.distance": "mse"},
    ),
    Row(
        "tiny-imagenet-.*-(dream-plus-frozen|easy)",
        f"{IDC_CODE}, evaluation up to 64 px",
        {
            **in_section("evaluation", epochs=1000, batch_size=64, lr=0.01, lr_decay=0.2, momentum=0.9),
            **in_section("evaluation", lr_milestones=[2 / 3, 5 / 6], weight_decay=5e-4, cutmix_probability=0.5),
            **in_section("evaluation", augmentation="color_crop_flip_scale_rotate", random_resized_crop=False),
            "evaluation.restart_momentum": False,
        },
    ),
    Row(
        ".*-easy",
        "settings of DREAM+ at its usual scale, which a selection does not use",
        {
            "inner_steps": 100,
            "source.kind": "real",
            "matching.distance": "mse",
            **in_section("selection", num_clusters=128, rule="each"),
        },
    ),
    *(
        Row(f".*-ipc{ipc}-easy", "5e-3 * ipc / 10, which a selection does not use", {"pixels.lr": 5e-4 * ipc})
        for ipc in (1, 10, 50)
    ),
    Row(f"{ON_IMAGENET}-dream-plus-frozen", f"{IDC_CODE}, ImageNet", {"matching.distance": "l1"}),
    # IDC, DREAM, DREAM+
    Row(
        rf"{IDC_LIKE}({SMALL}|tiny-imagenet|imagenet10|imagenet100)-ipc{SIZES}",
        IDC_CODE,
        {
            "inner_steps": 100,
            "batch_synthetic_max": 128,
            "selection.in_passes": True,
            **in_section("matching", objective="bidirectional", biases=False, classifier=False),
            **in_section("pixels", momentum=0.5, coupling="sequential", space="unit"),
            **in_section("update", epochs=1, momentum=0.9, augmentation="color_crop"),
            **in_section("evaluation", lr_decay=0.2, lr_milestones=[2 / 3, 5 / 6], momentum=0.9),
            "evaluation.restart_momentum": False,
            "weights.gradient": 1,
        },
    ),
    Row(rf"{IDC_LIKE}({SMALL}|tiny-imagenet)-ipc{SIZES}", f"{IDC_CODE}, niter", {"outer_steps": 2000}),
    Row(
        rf"{IDC_LIKE}({SMALL}|tiny-imagenet)-ipc{SIZES}",
        IDC_CODE,
        {
            "decode": "single",
            "source.kind": "real",
            **in_section("update", lr=0.01, weight_decay=5e-4),
            **in_section("evaluation", epochs=1000, batch_size=64, lr=0.01, weight_decay=5e-4),
            "evaluation.random_resized_crop": False,
        },
    ),
    Row(rf"{IDC_LIKE}imagenet(10|100)-ipc{SIZES}", f"{IDC_CODE}, niter", {"outer_steps": 500}),
    Row(rf"{IDC_LIKE}imagenet(10|100)-ipc10", IDC_CODE, {"decode": "single"}),
    Row(rf"{IDC_LIKE}imagenet(10|100)-ipc20", f"{IDC_CODE}, decode_type bound", {"decode": "bound"}),
    Row(
        rf"{IDC_LIKE}imagenet(10|100)-ipc{SIZES}",
        IDC_CODE,
        {
            "matching.distance": "l1",
            **in_section("update", num_images=500, cutmix_probability=1),
            **in_section("evaluation", cutmix_probability=1, augmentation="flip", random_resized_crop=True),
        },
    ),
    Row(
        rf"{IDC_LIKE}imagenet10-ipc{SIZES}",
        f"{IDC_CODE}; epochs for 90 and 180 decoded images per class",
        {
            "source.kind": "real",
            "initialisation.warmup_epochs": 10,
            **in_section("update", warmup_epochs=10, lr=0.01, weight_decay=5e-4),
            **in_section("evaluation", epochs=1000, batch_size=64, lr=0.01, weight_decay=5e-4),
        },
    ),
    Row(
        rf"{IDC_LIKE}imagenet100-ipc{SIZES}",
        f"{IDC_CODE}, condense_mp.py; two thirds of the epochs",
        {
            **in_section("source", kind="pool", pool_size=10),
            "initialisation.warmup_epochs": 5,
            **in_section("update", warmup_epochs=5, batch_size=128, lr=0.1, weight_decay=1e-4),
            **in_section("evaluation", epochs=600, batch_size=128, lr=0.1, weight_decay=1e-4),
        },
    ),
    Row("idc-imagenet100-.*", "IDC's ClassPartMemDataLoader: class_batch_size 64", {"selection.num_clusters": 64}),
    Row(
        "idc-.*",
        IDC_CODE,
        {
            "initialisation.strategy": "random",
            "weights.feature": 0,
            **in_section("selection", strategy="random", num_clusters=64),
        },
    ),
    Row("idc-(?!imagenet100).*", f"{IDC_CODE}, batch_real", {"update.batch_size": 64}),
    Row("idc-(?!imagenet).*", f"{IDC_CODE}, without pre-training", {"update.warmup_epochs": 0}),
    Row(
        WITH_DREAM,
        DREAM_CODE,
        {
            "initialisation.strategy": "representative",
            **in_section("selection", strategy="representative", per_cluster=1, interval=10),
        },
    ),
    Row(
        rf"(dream-|)({SMALL}|imagenet10|imagenet100)-ipc{SIZES}",
        f"{DREAM_CODE}, batch_real",
        {"update.batch_size": 128, "selection.num_clusters": 128},
    ),
    Row(
        rf"(dream-|)tiny-imagenet-ipc{SIZES}",
        f"{DREAM_CODE}, batch_real",
        {"update.batch_size": 64, "selection.num_clusters": 64},
    ),
    Row(
        rf"(dream-|){SMALL}-ipc{SIZES}|dream-.*",
        f"{DREAM_CODE}: the nearest of each centre",
        {"selection.rule": "each"},
    ),
    Row(rf"imagenet(10|100)-ipc{SIZES}", f"{DREAM_CODE}: the nearest of each centre", {"selection.rule": "each"}),
    Row(rf"tiny-imagenet-ipc{SIZES}", "DREAM+'s code: the nearest of any centre", {"selection.rule": "any"}),
    Row(
        rf"dream-({SMALL}|tiny-imagenet)-ipc{SIZES}",
        f"{DREAM_CODE}: the first network is untrained",
        {"initialisation.warmup_epochs": 0, "update.warmup_epochs": 0},
    ),
    Row("dream-.*", "DREAM matches gradients alone", {"weights.feature": 0}),
    Row(
        rf"({SMALL}|tiny-imagenet)-ipc{SIZES}",
        "DREAM+'s code: one epoch for every network",
        {"initialisation.warmup_epochs": 1, "update.warmup_epochs": 1},
    ),
    Row(
        rf"({SMALL}|tiny-imagenet|imagenet10|imagenet100)-ipc{SIZES}",
        "DREAM+'s code: both weights 1",
        {"weights.feature": 1},
    ),
    Row(
        rf"{IDC_LIKE}(cifar10|cifar100)-ipc{SIZES}",
        IDC_CODE,
        {
            "matching.distance": "mse",
            "matching.augmentation": "color_crop_cutout",
            **in_section("update", num_images=2000, cutmix_probability=0.5),
            **in_section("evaluation", cutmix_probability=0.5, augmentation="color_crop_flip_scale_rotate"),
        },
    ),
    Row(
        rf"{IDC_LIKE}svhn-ipc{SIZES}",
        IDC_CODE,
        {
            "matching.distance": "mse",
            "matching.augmentation": "color_crop_cutout",
            **in_section("update", num_images=500, cutmix_probability=0.5),
            **in_section("evaluation", cutmix_probability=0.5, augmentation="color_crop_scale_rotate"),
        },
    ),
    Row(
        rf"{IDC_LIKE}mnist-ipc{SIZES}",
        f"{IDC_CODE}: neither cutout nor CutMix of mosaics",
        {
            "matching.distance": "l1",
            "matching.augmentation": "color_crop",
            **in_section("update", num_images=500, cutmix_probability=0),
            **in_section("evaluation", cutmix_probability=0, augmentation="color_crop_scale_rotate"),
        },
    ),
    Row(
        rf"{IDC_LIKE}fashion-mnist-ipc{SIZES}",
        IDC_CODE,
        {
            "matching.distance": "l1",
            "matching.augmentation": "color_crop_cutout",
            **in_section("update", num_images=500, cutmix_probability=0.5),
            **in_section("evaluation", cutmix_probability=0.5, augmentation="color_crop_flip_scale_rotate"),
        },
    ),
    Row(
        rf"{IDC_LIKE}tiny-imagenet-ipc{SIZES}",
        DREAM_CODE,
        {
            "matching.distance": "mse",
            "matching.augmentation": "color_crop_cutout",
            **in_section("update", num_images=1000, cutmix_probability=0.5),
            **in_section("evaluation", cutmix_probability=0.5, augmentation="color_crop_flip_scale_rotate"),
        },
    ),
    Row(rf"{IDC_LIKE}imagenet(10|100)-ipc{SIZES}", IDC_CODE, {"matching.augmentation": "color_crop_cutout"}),
]
