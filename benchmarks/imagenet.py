"""GPU hours of the ImageNet recipes in imagenet.md, from measured training throughput.

    python -m benchmarks.imagenet

Reads throughput_train_cuda.csv, which ``python -m benchmarks.throughput --part train --device cuda`` writes, and
replaces the block in benchmarks/imagenet.md. Without such a measurement the block says so.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.files import read_csv, save_atomically
from benchmarks.common.provenance import ROOT
from benchmarks.paper_results import RESULTS
from benchmarks.readme import with_block

COMMAND = "python -m benchmarks.imagenet"
PAGE = ROOT / "benchmarks" / "imagenet.md"
THROUGHPUT = RESULTS / "throughput_train_cuda.csv"
TRAIN_IMAGES = 1_281_167
EPOCHS = {"paper": 106, "A2": 300, "A1": 600}
NETWORKS = ("resattn56", "resattn92")


def gpu_hours(epochs: int, images_per_second: float) -> float:
    """Hours of one GPU for so many passes over ImageNet's training set, if nothing else takes time."""
    return epochs * TRAIN_IMAGES / images_per_second / 3600


def fastest(rows: Sequence[dict[str, str]], network: str) -> float | None:
    """Images per second of the fastest training in mixed precision at 224 pixels that was measured."""
    rates = [
        float(row["images_per_second"])
        for row in rows
        if (row["network"], row["dtype"], row["img_size"], row["status"]) == (network, "autocast", "224", "ok")
    ]
    return max(rates, default=None)


def as_markdown(rows: Sequence[dict[str, str]]) -> str:
    """The table of GPU hours."""
    measured = {network: rate for network in NETWORKS if (rate := fastest(rows, network))}
    if not measured:
        return (
            "No training throughput has been measured on a GPU yet. "
            "`python -m benchmarks.throughput --part train --device cuda`, then `python -m benchmarks.imagenet`, "
            "put the hours here.\n"
        )
    names = ", ".join(f"{name} ({epochs} epochs)" for name, epochs in EPOCHS.items())
    lines = [f"| network | images/s, one GPU | GPU hours: {names} |", "|---|---:|---:|"]
    for network, rate in measured.items():
        hours = " / ".join(f"{gpu_hours(epochs, rate):.0f}" for epochs in EPOCHS.values())
        lines.append(f"| `{network}` | {rate:.0f} | {hours} |")
    return "\n".join(lines) + "\n"


def main(throughput: Path = THROUGHPUT, page: Path = PAGE) -> None:
    text = with_block(page.read_text(), COMMAND, as_markdown(read_csv(throughput)))
    save_atomically(page, lambda path: path.write_text(text))
    print(f"{page.name}: written")


if __name__ == "__main__":
    main()
