"""The result of an evaluation: the list of its rows, which is shown as a table. Imports no PyTorch."""

from typing import TYPE_CHECKING, Any

from dream_ray.core.tables import ShownAsTables, Table, accuracy_cell
from dream_ray.engine.evaluation.scores import (
    classes_with_images,
    compare_with,
    describe_images,
    score_cells,
    trained_on,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Evaluation(ShownAsTables, list[dict[str, Any]]):
    """Rows of `evaluate.summarise`: a row for each network and set, or step."""

    def tables(self) -> list[Table]:
        """Returns the accuracies, and for each network the differences from its first set."""
        rows = [
            [
                row["network"],
                trained_on(row),
                str(row["num_images"]),
                str(row["epochs"]),
                accuracy_cell(row),
                str(row["n"]),
                *score_cells(row),
            ]
            for row in self
        ]
        headings = ("network", "trained on", "images", "epochs", "accuracy in %", "n", "balanced %", "by test images")
        tables = [Table("top-1 accuracy, last epoch, 95 % intervals", headings, rows)]
        for network in dict.fromkeys(row["network"] for row in self):
            reference, *others = [row for row in self if row["network"] == network]
            if lines := compare_with(reference, [(trained_on(row), row) for row in others]):
                classes = classes_with_images(reference.get("images_of_classes", ()))
                images = describe_images(reference["tested"], classes=classes)
                title = f"{network}, compared with {trained_on(reference)}; {images}"
                tables.append(Table(title, ("difference (95 %)",), [[line] for line in lines]))
        return tables

    def plot(self) -> "Figure":
        """Draws a bar for each set; accuracies of several steps as a curve."""
        from dream_ray.engine.evaluation.plots import draw_evaluation, draw_steps

        of_several_steps = len({row["step"] for row in self if row["step"] is not None}) > 1
        one_network = len({row["network"] for row in self}) == 1
        draw = draw_steps if of_several_steps and one_network else draw_evaluation
        return draw(self, title=self[0]["network"] if one_network else "")
