"""Files to and from a GPU machine that is lent for minutes; the order of its commands is in gpu_session.md.

    python -m benchmarks.gpu_session pack STRIPS              here: the data into .gpu/part1 and .gpu/part2
    python -m benchmarks.gpu_session unpack PART DATA         there: a part; with the last one, train.npz and test.npz
    python -m benchmarks.gpu_session keep RUNS OUT            there: runs into pieces small enough to come back
    python -m benchmarks.gpu_session restore PIECES RUNS      anywhere: the runs out of the pieces
    python -m benchmarks.gpu_session epochs LOG SECONDS       there: epochs that fit, by the last epoch's speed

Of an unfinished run its checkpoint is kept, of a finished one its result, log and weights.
"""

import argparse
import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

from benchmarks.common.files import save_atomically
from benchmarks.common.provenance import ROOT
from benchmarks.paper_results import CIFAR_IMAGES

PARTS = ROOT / ".gpu"
PIECE_BYTES = 15 * 2**20  # a file that comes back has at most 16 MiB
MOST_BYTES = 60 * 2**20  # and all of them together 64 MiB
UNPACKER = "unpack_cifar.py"
FINISHED = ("result.json", "log.jsonl", "model.safetensors", "ema.safetensors")
UNFINISHED = ("last.pt", "log.jsonl")


def pack(strips: Path, out: Path = PARTS) -> list[Path]:
    """Copy the packed CIFAR set ``STRIPS/cifar10`` and its unpacker into two folders of about equal size.

    Raises:
        ValueError: ``strips`` holds no such set.
    """
    files = sorted((strips / "cifar10").glob("*"))
    if not files or not (strips / UNPACKER).is_file():
        raise ValueError(f"STRIPS must hold cifar10/ and {UNPACKER}; {strips} does not")
    total = sum(file.stat().st_size for file in files)
    shutil.rmtree(out, ignore_errors=True)
    folders = [out / "part1", out / "part2"]
    seen = 0
    for file in files:
        folder = folders[2 * seen >= total] / "cifar10"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / file.name)
        seen += file.stat().st_size
    for folder in folders:
        folder.mkdir(exist_ok=True)
        shutil.copyfile(strips / UNPACKER, folder / UNPACKER)
        (folder / "files.json").write_text(json.dumps([file.name for file in files]))
    return folders


def unpack(part: Path, data: Path) -> bool:
    """Put a part of the packed set beside the others; once all are there write the npz files, and tell so."""
    packed = data / "packed"
    shutil.copytree(part, packed, dirs_exist_ok=True)
    expected = json.loads((packed / "files.json").read_text())
    if not all((packed / "cifar10" / name).is_file() for name in expected):
        return False
    subprocess.run([sys.executable, packed / UNPACKER, packed / "cifar10", data], check=True)
    return True


def keep(runs: Path, out: Path) -> list[Path]:
    """Pack what is worth keeping of all runs below ``runs`` into ``OUT/state.00``, ``state.01`` and so on.

    Raises:
        ValueError: It is more than may come back.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for log in sorted(runs.rglob("log.jsonl")):
            finished = (log.parent / "result.json").is_file()
            for name in FINISHED if finished else UNFINISHED:
                if (log.parent / name).is_file():
                    archive.add(log.parent / name, (log.parent / name).relative_to(runs).as_posix())
    content = buffer.getvalue()
    if len(content) > MOST_BYTES:
        raise ValueError(f"the runs in {runs} take {len(content) >> 20} MiB, more than {MOST_BYTES >> 20}; keep fewer")
    out.mkdir(parents=True, exist_ok=True)
    pieces = [content[start : start + PIECE_BYTES] for start in range(0, len(content), PIECE_BYTES)]
    paths = [out / f"state.{number:02}" for number in range(len(pieces))]
    for path, piece in zip(paths, pieces, strict=True):
        save_atomically(path, lambda partial, piece=piece: partial.write_bytes(piece))
    return paths


def restore(pieces: Path, runs: Path) -> list[str]:
    """Unpack the pieces in a folder below ``runs``; returns the names of the files.

    Raises:
        ValueError: The folder holds no pieces, or they do not fit together.
    """
    content = b"".join(path.read_bytes() for path in sorted(pieces.glob("state.[0-9][0-9]")))
    try:
        # unpacked at once, which checks length and sum: tarfile takes a broken header for the archive's end
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content))) as archive:
            archive.extractall(runs, filter="data")
            return archive.getnames()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"{pieces} holds no whole set of pieces state.00, state.01, ...: {error}") from error


def epochs(log: Path, seconds: float) -> int:
    """Epochs over CIFAR that fit into so many seconds at the speed of the log's last epoch, at least one."""
    last = json.loads(log.read_text().splitlines()[-1])
    return max(1, int(seconds * last["images_per_second"] / CIFAR_IMAGES))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu_session", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, arguments in {
        "pack": ("strips",), "unpack": ("part", "data"), "keep": ("runs", "out"), "restore": ("pieces", "runs"),
        "epochs": ("log", "seconds"),
    }.items():  # fmt: skip
        command = commands.add_parser(name)
        for argument in arguments:
            command.add_argument(argument, type=float if argument == "seconds" else Path, metavar=argument.upper())
    args = parser.parse_args(argv)
    try:
        if args.command == "pack":
            for folder in pack(args.strips):
                size = sum(file.stat().st_size for file in folder.rglob("*.*"))
                print(f"{folder.relative_to(ROOT)}: {size / 2**20:.0f} MiB")
        elif args.command == "unpack":
            print("all is there" if unpack(args.part, args.data) else "the other part is missing yet")
        elif args.command == "keep":
            for path in keep(args.runs, args.out):
                print(f"{path}: {path.stat().st_size:,} bytes")
        elif args.command == "restore":
            print("\n".join(restore(args.pieces, args.runs)))
        else:
            print(epochs(args.log, args.seconds))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
