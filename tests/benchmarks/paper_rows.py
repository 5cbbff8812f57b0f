"""Rows of the paper's tables as runs write them."""

from dataclasses import replace


def schedule(epochs=2, images=None):
    from benchmarks.cifar.recipe import RECIPES  # a source distribution has no benchmarks
    from benchmarks.cifar.results import schedule_of
    from benchmarks.cifar.run import Run

    return schedule_of(Run("resattn56_cifar", replace(RECIPES["paper"], epochs=epochs), images=images))


def line(number, cell, error, seed=0, text=None, images=10_000):
    from benchmarks.paper import results as paper_results

    row = dict.fromkeys(paper_results.FIELDS, "x") | {
        "table": number, "row": cell.row, "column": cell.column, "seed": seed, "error": error, "parameters": 1_864_000,
        "epochs": 2, "training_images": 50_000, "held_out": f"test, {images} images", "threads": 2, "gpu": "",
        "schedule": text or schedule(),
    }  # fmt: skip
    return {name: str(value) for name, value in row.items()}
