"""CIFAR for the trainer: what is read, what is refused, and that noise and augmentation are what they say."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import datasets

from benchmarks.cifar import data as cifar_data


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (30, 32, 32, 3), np.uint8), np.arange(30) % 10


def write_npz(folder, images, labels, split="train"):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{split}.npz", images=images, labels=labels)


def write_folder(folder, images, labels, split="train"):
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / split / f"class{label}" / f"{i:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def write_torchvision(folder, images, labels, monkeypatch):
    base = folder / "cifar-10-batches-py"
    base.mkdir(parents=True)

    def write(name, content):
        data = pickle.dumps(content)
        (base / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    batch = write("data_batch_1", {"data": flat, "labels": labels.tolist()})
    filename, md5 = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [batch])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [batch])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": filename, "key": "label_names", "md5": md5})


def test_the_three_forms_hold_the_same(tmp_path, arrays, monkeypatch):
    write_npz(tmp_path / "npz", *arrays)
    write_folder(tmp_path / "folder", *arrays)
    write_torchvision(tmp_path / "torchvision", *arrays, monkeypatch)
    for form in ("npz", "folder", "torchvision"):
        images, labels = cifar_data.load_cifar(tmp_path / form, "train")
        assert images.shape == (30, 3, 32, 32) and images.dtype == torch.uint8 and labels.dtype == torch.int64
        assert np.array_equal(images.movedim(1, -1).numpy(), arrays[0]), form
        assert np.array_equal(labels.numpy(), arrays[1]), form


def spoil_torchvision(folder, images, labels, monkeypatch):
    write_torchvision(folder, images, labels, monkeypatch)
    with (folder / "cifar-10-batches-py" / "data_batch_1").open("ab") as file:
        file.write(b"x")


def spoil_image(folder, images, labels, _):
    write_folder(folder, images, labels)
    (folder / "train" / "class3" / "00003.png").write_bytes(b"not an image")


def large_image(folder, images, labels, _):
    write_folder(folder, images, labels)
    Image.new("RGB", (33, 32)).save(folder / "train" / "class3" / "00003.png")


def empty_folder(folder, images, labels, _):
    for label in range(10):
        (folder / "train" / f"class{label}").mkdir(parents=True)


def broken_archive(folder, images, labels, _):
    folder.mkdir()
    (folder / "train.npz").write_bytes(b"PK not an archive")


def other_archive(folder, images, labels, _):
    folder.mkdir()
    np.savez(folder / "train.npz", x=images)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder, images, labels, _: folder.mkdir(), "holds neither train.npz nor an image folder"),
        (broken_archive, "train.npz can't be read as arrays"),
        (other_archive, "must hold the arrays images and labels"),
        (
            lambda f, x, y, _: write_npz(f, x, np.where(y == 7, 10, y)),
            "labels of cifar10 must be from 0 to 9; image 7 ",
        ),
        (lambda f, x, y, _: write_npz(f, x, y - 1), "labels of cifar10 must be from 0 to 9; image 0 of train has -1"),
        (
            lambda f, x, y, _: write_npz(f, x, y + 0.5),
            "labels of cifar10 must be from 0 to 9; image 0 of train has 0.5",
        ),
        (lambda f, x, y, _: write_npz(f, x[:, :28], y), r"must have images \(N, 32, 32, 3\) uint8"),
        (lambda f, x, y, _: write_npz(f, x / 255, y), r"must have images \(N, 32, 32, 3\) uint8"),
        (lambda f, x, y, _: write_npz(f, x, y[:-1]), r"labels \(N,\); got \(30, 32, 32, 3\) uint8 and \(29,\)"),
        (lambda f, x, y, _: write_folder(f, x[:9], y[:9]), "must have 10 folders, one a class; it has 9"),
        (empty_folder, "Found no valid file for the classes class0, class1"),
        (spoil_image, "00003.png can't be read as an image"),
        (large_image, "00003.png must be an image of 32x32 pixels; it has 33x32"),
        (spoil_torchvision, "not found or corrupted"),
    ],
)
def test_what_is_broken_is_one_clear_error(tmp_path, arrays, monkeypatch, spoil, message):
    spoil(tmp_path / "data", *arrays, monkeypatch)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        cifar_data.load_cifar(tmp_path / "data", "train")
    assert "\n" not in str(caught.value) and "data" in str(caught.value)


def test_an_unknown_dataset_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dataset must be one of cifar10, cifar100; got 'mnist'"):
        cifar_data.load_cifar(tmp_path, "train", "mnist")


@given(noise=st.floats(0, 1), num_classes=st.sampled_from([2, 10, 100]), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_label_noise_has_the_stated_transition(noise, num_classes, seed):
    count = 20_000
    clean = torch.arange(count) % num_classes
    noisy = cifar_data.add_label_noise(clean, noise, num_classes, seed)
    kept = (noisy == clean).double().mean().item()
    assert abs(kept - (1 - noise)) <= 6 * (noise * (1 - noise) / count) ** 0.5 + 1e-12
    moved = noisy != clean
    shifts = torch.bincount((noisy - clean)[moved] % num_classes, minlength=num_classes)[1:].double()
    expected = moved.sum().item() / (num_classes - 1)
    assert ((shifts - expected).abs() <= 6 * expected**0.5 + 1).all()
    assert noisy.min() >= 0 and noisy.max() < num_classes
    assert torch.equal(noisy, cifar_data.add_label_noise(clean, noise, num_classes, seed))


def test_label_noise_at_its_ends_and_beyond():
    labels = torch.arange(1000) % 10
    assert torch.equal(cifar_data.add_label_noise(labels, 0.0, 10, 0), labels)
    assert (cifar_data.add_label_noise(labels, 1.0, 10, 0) != labels).all()
    first, second = (cifar_data.add_label_noise(labels, 0.5, 10, seed) for seed in (0, 1))
    assert not torch.equal(first, second)
    for noise in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="label_noise must be from 0 to 1"):
            cifar_data.add_label_noise(labels, noise, 10, 0)


@settings(deadline=None)
@given(count=st.integers(1, 200), share=st.floats(0, 1, exclude_max=True))
def test_validation_split_is_a_partition(count, share):
    val_images = int(share * count)
    train, val = cifar_data.split_validation(count, val_images)
    assert len(val) == val_images
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(count))
    larger, _ = cifar_data.split_validation(count, val_images // 2)
    assert set(train.tolist()) <= set(larger.tolist())  # a smaller split is the end of a larger one


@pytest.mark.parametrize("val_images", [-1, 10, 11])
def test_validation_split_leaves_something(val_images):
    with pytest.raises(ValueError, match="val_images must be from 0 to 9"):
        cifar_data.split_validation(10, val_images)


@given(pad=st.integers(0, 4), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_each_crop_is_one_of_its_own_image(pad, seed):
    torch.manual_seed(seed)
    images = torch.rand(6, 3, 8, 10)
    found = cifar_data.random_crop_flip(images, pad)
    padded = torch.nn.functional.pad(images, [pad] * 4)
    for image, result in zip(padded, found, strict=True):
        crops = [image[:, i : i + 8, j : j + 10] for i in range(2 * pad + 1) for j in range(2 * pad + 1)]
        assert any(torch.equal(result, c) or torch.equal(result, c.flip(-1)) for c in crops)


@given(size=st.integers(1, 8), pad=st.integers(0, 3), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_a_crop_of_another_size(size, pad, seed):
    torch.manual_seed(seed)
    images = torch.rand(5, 3, 8, 10)
    found = cifar_data.random_crop_flip(images, pad, size)
    assert found.shape == (5, 3, size, size)
    padded = torch.nn.functional.pad(images, [pad] * 4)
    for image, result in zip(padded, found, strict=True):
        crops = image.unfold(1, size, 1).unfold(2, size, 1).flatten(1, 2).movedim(0, 1)
        assert any(torch.equal(result, c) or torch.equal(result, c.flip(-1)) for c in crops)


@example(count=3, share=0.5, seed=0)
@given(count=st.integers(1, 200), share=st.floats(0, 0.5), seed=st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_pruning_thins_the_easy_images_by_half(count, share, seed):
    losses = torch.from_numpy(np.random.default_rng(seed).permutation(count)).float()
    kept, weights = cifar_data.prune(losses, share, np.random.default_rng(seed))
    left_out = cifar_data.left_out(count, share)
    assert abs(left_out - share * count) <= 0.5 and len(kept) == len(kept.unique()) == len(weights) == count - left_out
    easy = losses[kept] < 2 * left_out
    assert torch.equal(weights, torch.where(easy, 2.0, 1.0)) and easy.sum() == left_out
    assert weights.sum() == count  # the weighted sum stands for all images


def test_pruning_is_unbiased_and_draws_anew():
    losses = torch.arange(40.0)
    rng = np.random.default_rng(0)
    total, orders = torch.zeros(40), set()
    for _ in range(2000):
        kept, weights = cifar_data.prune(losses, 0.35, rng)
        total[kept] += weights
        orders.add(tuple(kept[:4].tolist()))
    mean = total / 2000
    assert torch.equal(mean[28:], torch.ones(12)) and (mean[:28] - 1).abs().max() < 6 / 2000**0.5
    assert len(orders) > 1000


def test_crops_and_flips_are_drawn_per_image_and_uniformly():
    count, pad = 8100, 1
    image = torch.arange(1.0, 17).view(1, 1, 4, 4)
    found = cifar_data.random_crop_flip(image.expand(count, 1, 4, 4), pad)
    kinds, counts = found.flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 2 * (2 * pad + 1) ** 2  # every place, mirrored and not
    assert ((counts - count / len(kinds)).abs() < 6 * (count / len(kinds)) ** 0.5).all()


@given(size=st.integers(1, 12), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_cutout_blanks_one_square_in_each_image(size, seed):
    torch.manual_seed(seed)
    images = torch.rand(5, 3, 10, 11) + 1
    found = cifar_data.cutout(images, size)
    blank = (found == 0).all(1)
    assert torch.equal(found, images * ~blank[:, None])
    for mask in blank:
        rows, cols = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & cols)
        for side in (rows, cols):
            at = side.nonzero().flatten()
            assert len(at) == at[-1] - at[0] + 1  # without a gap
            assert len(at) == size or at[0] == 0 or at[-1] == len(side) - 1  # or cut off by the border


def test_cutout_is_drawn_per_image():
    found = cifar_data.cutout(torch.ones(64, 1, 32, 32), 8)
    assert len(found.unique(dim=0)) > 50


def test_inputs_are_centred():
    images = torch.randint(0, 256, (50, 3, 32, 32), dtype=torch.uint8)
    mean = cifar_data.pixel_mean(images)
    found = cifar_data.subtract_pixel_mean(images, mean)
    assert mean.shape == (1, 3, 32, 32)
    assert found.mean(0).abs().max() < 1e-6
    assert torch.allclose(found[0] - found[1], (images[0].float() - images[1].float()) / 255, atol=1e-6)
    black, white = cifar_data.normalize(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4))
    for channel, (centre, deviation) in enumerate(zip(cifar_data.MEAN, cifar_data.STD, strict=True)):
        assert black[channel].unique().item() == pytest.approx(-centre / deviation, rel=1e-5)
        assert white[channel].unique().item() == pytest.approx((1 - centre) / deviation, rel=1e-5)
