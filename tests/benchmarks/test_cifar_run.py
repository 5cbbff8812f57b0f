"""A run: its arguments, its data, and when a checkpoint is of the same one."""

from dataclasses import replace

import pytest
import torch
from cifar_runs import MODEL, SMALL, STEPS
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cifar import __main__ as command
from benchmarks.cifar import run as runs
from benchmarks.cifar.recipe import Recipe
from benchmarks.cifar.run import Run

recipe_values = dict(
    epochs=st.integers(5, 300),
    batch_size=st.sampled_from([32, 64, 128]),
    lr=st.floats(1e-4, 1),
    decay_all=st.booleans(),
    sched=st.sampled_from(["multistep", "cosine", "onecycle"]),
    smoothing=st.floats(0, 0.5),
    crop=st.integers(0, 40),
    crop_epochs=st.floats(0, 1),
    cutout=st.integers(0, 16),
    fallback_lr_scale=st.floats(0.01, 2),
    mean=st.sampled_from(["channel", "pixel"]),
)
mixed_or_pruned = st.builds(Recipe, **recipe_values, mixup=st.floats(0, 1)) | st.builds(
    Recipe, **recipe_values, prune=st.floats(0, 0.5)
)


@given(
    run=st.builds(
        Run,
        st.just(MODEL),
        mixed_or_pruned,
        model_kwargs=st.sampled_from([{}, {"attn_act": "channel"}, {"depths": [1, 2, 1], "attn_residual": False}]),
        dataset=st.sampled_from(["cifar10", "cifar100"]),
        images=st.none() | st.integers(1, 50_000),
        val_images=st.integers(0, 100),
        label_noise=st.floats(0, 1),
        seed=st.integers(0, 99),
        amp=st.booleans(),
    )
)
@settings(max_examples=50, deadline=None)
def test_a_run_s_arguments_ask_for_it(run):
    arguments = [*run.arguments(), "--data-dir", "DIR", "--out", "OUT"]
    assert command.run_of(command.build_parser().parse_args(arguments)) == run


def test_runs_from_before_a_recipe_had_a_value_are_read():
    run = Run(MODEL, Recipe())
    older = {
        name: value
        for name, value in run.as_dict().items()
        if name not in ("crop", "crop_epochs", "prune", "fallback_lr_scale")
    }
    assert Run.from_dict(older) == run
    runs.check_same_run(older, run, 1, STEPS)


@pytest.mark.parametrize("options", [[], ["--recipe", "paper"], ["--label-noise", 0.3, "--init", "x.pt", "--no-amp"]])
def test_a_run_comes_back_from_its_values(options):
    given = [*SMALL, "--data-dir", "x", "--out", "y", *map(str, options)]
    run = command.run_of(command.build_parser().parse_args(given))
    assert Run.from_dict(run.as_dict()) == replace(run, model_kwargs=run.as_dict()["model_kwargs"])


def test_noise_is_on_the_training_labels_only(data):
    run = Run(MODEL, Recipe(batch_size=16), val_images=20, label_noise=1.0)
    loaded = runs.load_data(run, data, torch.device("cpu"))
    images, labels = runs.load_cifar(data, "train")
    by_image = {image.numpy().tobytes(): label for image, label in zip(images, labels.tolist(), strict=True)}
    assert all(by_image[i.numpy().tobytes()] == label for i, label in zip(*loaded.held_out, strict=True))
    assert all(by_image[i.numpy().tobytes()] != y for i, y in zip(loaded.images, loaded.labels, strict=True))
