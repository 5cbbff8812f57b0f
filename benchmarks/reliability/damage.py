"""Files of weights, whole, damaged and hostile, of a network that builds in milliseconds."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import timm
import torch
from safetensors.torch import save

import timm_resattn  # noqa: F401  registers the models

MODEL = "resattn56_cifar"
CLASSES = 5
KWARGS = dict(depths=(1, 1), widths=(16, 32), closing_units=(0, 1), mask_pools=(2, 1), stem_chs=8)
FORMATS = (".pth", ".old.pth", ".safetensors", ".npz")
CHECKED = (".pth", ".npz")  # their archives hold checksums
BOMB = 1 << 30  # bytes that a file of a megabyte unpacks to

StateDict = dict[str, torch.Tensor]


def weights() -> StateDict:
    """What the files hold before they are damaged."""
    torch.manual_seed(0)
    model = timm.create_model(MODEL, num_classes=CLASSES, **KWARGS).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 16, 16))
    return model.state_dict()


def content(tensors: StateDict, form: str) -> bytes:
    """A file of these tensors."""
    if form == ".safetensors":
        return save({name: tensor.contiguous() for name, tensor in tensors.items()})
    buffer = io.BytesIO()
    if form == ".npz":
        np.savez(buffer, **{name: tensor.numpy() for name, tensor in tensors.items()})
    else:
        torch.save({"state_dict": tensors}, buffer, _use_new_zipfile_serialization=form == ".pth")
    return buffer.getvalue()


@dataclass
class Damaged:
    """A file: how it is made, and which entrances must refuse it or, where it is whole, read it."""

    name: str
    form: str
    make: Callable[[Path], object]
    ours_refuse: bool = True  # those of this package that read a file themselves
    names_refuse: bool = False  # those by which timm reads it, by its names and shapes
    whole: bool = False
    same_for_ours: bool = False  # what is read of it, if anything, must be what was written
    same_for_all: bool = False


# --- bytes ------------------------------------------------------------------------------------------------------


def flipped(data: bytes, position: int, rng: Random) -> bytes:
    """One bit is another."""
    return data[:position] + bytes([data[position] ^ 1 << rng.randrange(8)]) + data[position + 1 :]


def truncated(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(1, len(data))]


def flipped_in_header(data: bytes, rng: Random) -> bytes:
    return flipped(data, rng.randrange(min(len(data), 2000)), rng)


def flipped_at_the_end(data: bytes, rng: Random) -> bytes:
    return flipped(data, len(data) - 1 - rng.randrange(2000), rng)


def flipped_in_data(data: bytes, rng: Random) -> bytes:
    return flipped(data, rng.randrange(len(data) // 4, 3 * len(data) // 4), rng)


def without_a_piece(data: bytes, rng: Random) -> bytes:
    start, length = rng.randrange(len(data) // 2), rng.randrange(1, 5000)
    return data[:start] + data[start + length :]


def with_zeros(data: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(data) - 600)
    return data[:start] + bytes(512) + data[start + 512 :]


def with_noise(data: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(data) - 600)
    return data[:start] + rng.randbytes(512) + data[start + 512 :]


def with_a_tail(data: bytes, rng: Random) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 5000))


SURE = (truncated, without_a_piece)  # every format is recognised as damaged
BYTES = (*SURE, flipped_in_header, flipped_at_the_end, flipped_in_data, with_zeros, with_noise, with_a_tail)


# --- tensors ----------------------------------------------------------------------------------------------------


def _some(tensors: StateDict, rng: Random, part: str = "weight") -> str:
    return rng.choice([name for name in tensors if name.endswith(part)] or [*tensors])


def renamed(tensors: StateDict, rng: Random) -> None:
    name = _some(tensors, rng)
    tensors[name + "s"] = tensors.pop(name)


def lacking(tensors: StateDict, rng: Random) -> None:
    del tensors[_some(tensors, rng)]


def added(tensors: StateDict, rng: Random) -> None:
    tensors[f"stages.{rng.randrange(9)}.extra.weight"] = torch.zeros(3)


def shaped(tensors: StateDict, rng: Random) -> None:
    name = _some(tensors, rng)
    tensors[name] = rng.choice([lambda t: t[:-1], lambda t: t[None], lambda t: t.flatten()[:1], lambda t: t[:0]])(
        tensors[name]
    ).clone()


def of_type(tensors: StateDict, rng: Random) -> None:
    name = _some(tensors, rng)
    tensors[name] = tensors[name].to(rng.choice([torch.int64, torch.uint8, torch.bool, torch.complex64]))


def with_value(tensors: StateDict, rng: Random) -> None:
    name = _some(tensors, rng)
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[rng.randrange(tensors[name].numel())] = rng.choice([torch.nan, torch.inf, -torch.inf])


def too_large(tensors: StateDict, rng: Random) -> None:
    name = _some(tensors, rng)
    tensors[name] = tensors[name].double() * 1e300


def negative_variance(tensors: StateDict, rng: Random) -> None:
    name = _some(tensors, rng, "running_var")
    tensors[name] = tensors[name].clone()
    tensors[name][rng.randrange(len(tensors[name]))] = -1e-3


def twice(tensors: StateDict, rng: Random) -> None:
    name = _some(tensors, rng)
    tensors[rng.choice(["module.", "_orig_mod.", "module._orig_mod."]) + name] = torch.zeros_like(tensors[name])


BY_NAME = (renamed, lacking, added, shaped)  # timm sees them too
TENSORS = (*BY_NAME, of_type, with_value, too_large, negative_variance, twice)


# --- hostile ----------------------------------------------------------------------------------------------------


class Code:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def with_code(tensors: StateDict, path: Path, zipped: bool, nested: bool) -> None:
    """The command makes the file ``MARK`` beside the weights."""
    code = Code(f"touch '{path.parent / 'MARK'}'")
    evil = {"state_dict": dict(tensors, evil=code)} if nested else code
    if zipped:
        torch.save(evil, path)
    else:
        path.write_bytes(pickle.dumps(evil, 2))


def array_with_code(path: Path) -> None:
    evil = np.empty(1, dtype=object)
    evil[0] = Code(f"touch '{path.parent / 'MARK'}'")
    np.savez(path, **{"stem.conv.weight": evil})


def _zeros_in(archive: zipfile.ZipFile, name: str, head: bytes = b"") -> None:
    piece = bytes(1 << 20)
    with archive.open(name, "w", force_zip64=True) as entry:
        entry.write(head)
        for _ in range(BOMB >> 20):
            entry.write(piece)


def array_bomb(path: Path) -> None:
    """A compressed array."""
    head = io.BytesIO()
    shape = dict(descr="<f4", fortran_order=False, shape=(BOMB // 4,))
    np.lib.format.write_array_header_1_0(head, shape)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        _zeros_in(archive, "stem.conv.weight.npy", head.getvalue())


def archive_bomb(path: Path) -> None:
    """A file of torch.save with a storage that is compressed, which torch's own never are."""
    buffer = io.BytesIO()
    torch.save({"stem.conv.weight": torch.zeros(4)}, buffer)
    with (
        zipfile.ZipFile(buffer) as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for name in plain.namelist():
            if name.endswith("/data/0"):
                _zeros_in(archive, name)
            else:
                archive.writestr(name, plain.read(name))


def view_bomb(path: Path) -> None:
    """A classifier of 10^9 classes that is a view of one number."""
    tensors = {"head.fc.weight": torch.zeros(()).expand(10**9, 32), "head.fc.bias": torch.zeros(()).expand(10**9)}
    torch.save({**weights(), **tensors}, path)


def call_bomb(path: Path) -> None:
    """A pickle that asks for 10^11 bytes by a call that is allowed."""
    path.write_bytes(b"\x80\x02c__builtin__\nbytearray\nL100000000000L\n\x85R.")


def large_header(path: Path) -> None:
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")


def unreadable(path: Path) -> None:
    """Reading it is an error, for root too."""
    path.symlink_to("/proc/self/mem")


def hostile(tensors: StateDict) -> Iterator[Damaged]:
    """Files that are not what they seem."""
    for form in (".pth", ".pt", ".bin", ".pth.tar", ".safetensors", ".npz"):
        for zipped in (False, True):
            for nested in (False, True):
                yield Damaged(
                    f"code, {zipped=}, {nested=}",
                    form,
                    lambda path, z=zipped, n=nested: with_code(tensors, path, z, n),
                    names_refuse=True,
                )
        others = {
            "fifo": os.mkfifo,
            "folder": Path.mkdir,
            "empty": Path.touch,
            "link to itself": lambda path: path.symlink_to(path),
            "link to nothing": lambda path: path.symlink_to(path.with_name("nothing")),
            "link to a device": lambda path: path.symlink_to("/dev/zero"),
            "unreadable": unreadable,
            "nothing": lambda path: None,
            "text": lambda path: path.write_text("weights\n" * 99),
            "web page": lambda path: path.write_text("<!DOCTYPE html><html><title>404</title></html>"),
            "pointer of Git LFS": lambda path: path.write_text(
                "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
            ),
            "noise": lambda path: path.write_bytes(Random(0).randbytes(5000)),
        }
        yield from (Damaged(name, form, make, names_refuse=True) for name, make in others.items())
    yield Damaged("array with code", ".npz", array_with_code, names_refuse=True)
    yield Damaged("compressed array", ".npz", array_bomb, names_refuse=True)
    for form in (".pth", ".bin"):
        yield Damaged("compressed storage", form, archive_bomb, names_refuse=True)
        yield Damaged("view of one number", form, view_bomb, names_refuse=True)
        yield Damaged("call for memory", form, call_bomb, names_refuse=True)
    yield Damaged("header of 2^62 bytes", ".safetensors", large_header, names_refuse=True)


# --- all of them ------------------------------------------------------------------------------------------------


def files(count: int, rng: Random) -> Iterator[Damaged]:
    """So many files, the kinds in turn: whole ones, those of `hostile`, and damaged ones at random places."""
    tensors = weights()
    plain = {form: content(tensors, form) for form in FORMATS}

    def write(data: bytes) -> Callable[[Path], object]:
        return lambda path: path.write_bytes(data)

    def of_bytes(form: str, damage: Callable[[bytes, Random], bytes]) -> Damaged:
        sure = damage in SURE  # unless what is missing was of no use, as a mark in a pickle that nothing refers to
        spoilt = write(damage(plain[form], rng))
        return Damaged(damage.__name__, form, spoilt, False, False, False, sure or form in CHECKED, sure)

    def of_tensors(form: str, damage: Callable[[StateDict, Random], None]) -> Damaged:
        spoilt = dict(tensors)
        damage(spoilt, rng)
        return Damaged(damage.__name__, form, write(content(spoilt, form)), True, names_refuse=damage in BY_NAME)

    def linked(form: str) -> Callable[[Path], object]:
        def make(path: Path) -> None:
            write(plain[form])(path.with_name("target"))
            path.symlink_to(path.with_name("target"))

        return make

    fixed = [Damaged("whole", form, write(plain[form]), False, whole=True) for form in FORMATS]
    fixed += [Damaged("link to a whole one", form, linked(form), False, whole=True) for form in FORMATS]
    fixed += hostile(tensors)
    if count < 2 * len(fixed):
        fixed = rng.sample(fixed, count // 2)
    yield from fixed
    for i in range(count - len(fixed)):
        form = rng.choice(FORMATS)
        if i % 2:
            yield of_bytes(form, rng.choice(BYTES))
        else:  # safetensors and NumPy hold what torch does but for names and types; bfloat16 none of NumPy
            yield of_tensors(form, rng.choice(TENSORS))
