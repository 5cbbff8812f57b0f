"""The trainer for CIFAR: recipes, resuming, stopping, what it writes and what it refuses."""

import hashlib
import json
import os
import signal
from dataclasses import asdict, fields, replace
from itertools import pairwise

import pytest
import timm
import torch
from helpers import random_cifar
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from timm.layers import BatchNormAct2d

from timm_resattn.shipped import WEIGHTS

cifar = pytest.importorskip("benchmarks.cifar.__main__")
arguments = pytest.importorskip("benchmarks.cifar.arguments")
outputs = pytest.importorskip("benchmarks.cifar.outputs")
runs = pytest.importorskip("benchmarks.cifar.run")
dead = pytest.importorskip("benchmarks.cifar.dead")
recipes = pytest.importorskip("benchmarks.cifar.recipe")
trainer = pytest.importorskip("benchmarks.cifar.trainer")
Recipe, RECIPES, Run = recipes.Recipe, recipes.RECIPES, runs.Run

MODEL = "resattn56_cifar"
SMALL = [
    "--model",
    MODEL,
    "--model-kwargs",
    "depths=(1,0,0)",
    "widths=(8,8,16)",
    "mask_pools=(1,1,1)",
    "--batch-size",
    "16",
    *("--prune", "0", "--crop", "0", "--cutout", "0"),
]
STEPS = 4  # an epoch
needs_wsd = pytest.mark.skipif(not hasattr(timm.scheduler, "WSDLRScheduler"), reason="timm has no WSD schedule")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    random_cifar(folder, 70, 30)
    return folder


@pytest.fixture
def train(data, tmp_path):
    """Call the command; the run's folder is ``tmp_path / out``."""

    def run(*arguments, out="out", data_dir=data):
        given = map(str, arguments)
        return cifar.main(
            [*SMALL, "--data-dir", str(data_dir), "--device", "cpu", "--out", str(tmp_path / out), *given]
        )

    return run


def stop_after(monkeypatch, updates, stop):
    """Let ``stop`` be called in front of an update."""
    batch, calls = trainer.Trainer.batch, iter(range(1000))

    def counted(self, index):
        if next(calls) == updates:
            stop()
        return batch(self, index)

    monkeypatch.setattr(trainer.Trainer, "batch", counted)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def log_of(folder):
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    timed = ("seconds", "images_per_second", "share_outside")
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


# --- recipes


def test_the_paper_s_schedule():
    paper = RECIPES["paper"]
    rates = recipes.learning_rates(paper, 781, 781 * paper.epochs)
    changes = [i for i in range(1, len(rates)) if rates[i] != rates[i - 1]]
    assert changes == pytest.approx([64_000, 96_000], rel=2e-3) and len(rates) == pytest.approx(160_000, rel=2e-3)
    assert [rates[0], *(rates[i] for i in changes)] == pytest.approx([0.1, 0.01, 0.001])


@given(
    epochs=st.integers(2, 12),
    steps=st.integers(20, 60),
    warmup=st.floats(0, 1.5),
    decay=st.floats(0.1, 0.9),
    sched=st.sampled_from([s for s in recipes.SCHEDULES if s != "wsd" or hasattr(timm.scheduler, "WSDLRScheduler")]),
)
@settings(max_examples=60, deadline=None)
def test_a_schedule_rises_once_and_falls(epochs, steps, warmup, decay, sched):
    recipe = Recipe(epochs=epochs, warmup_epochs=warmup, decay_epochs=decay, sched=sched)
    rates = recipes.learning_rates(recipe, steps, epochs * steps)
    top = rates.index(max(rates))
    assert all(a <= b for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b for a, b in pairwise(rates[top:]))
    assert min(rates) >= 0 and max(rates) <= recipe.lr * (1 + 1e-9)
    assert top <= warmup * steps + 1


@needs_wsd
def test_wsd_can_be_prolonged_and_ends_at_zero():
    short, long = (Recipe(epochs=n, sched="wsd", warmup_epochs=1, decay_epochs=2) for n in (6, 12))
    first, second = (recipes.learning_rates(recipe, 10, recipe.epochs * 10) for recipe in (short, long))
    assert first[:41] == second[:41] and first[10:41] == [short.lr] * 31
    assert first[41] < short.lr and 0 < first[-1] == pytest.approx(short.lr / 20)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(epochs=0), "epochs must be an integer of at least 1; got 0"),
        (dict(batch_size=0), "batch_size must be"),
        (dict(lr=0.0), "lr must be greater than 0"),
        (dict(lr=float("nan")), "lr must be greater than 0"),
        (dict(weight_decay=-1.0), "weight_decay must be at least 0"),
        (dict(smoothing=1.0), "smoothing must be at least 0 and less than 1"),
        (dict(epochs=2, warmup_epochs=2.0), "warmup_epochs must be at least 0 and less than epochs"),
        (dict(sched="step"), "sched must be one of multistep, cosine, onecycle, wsd; got 'step'"),
        (dict(mean="none"), "mean must be one of channel, pixel; got 'none'"),
        (dict(sched="wsd", epochs=4, decay_epochs=9), "decay_epochs must be greater than 0"),
        (dict(mixup=0.2, batch_size=3), "batch_size must be even"),
        (dict(crop=-1), "crop must be at least 0; got -1"),
        (dict(crop_epochs=1.5), "crop_epochs must be from 0 to 1; got 1.5"),
        (dict(prune=0.6), "prune must be from 0 to 0.5; got 0.6"),
        (dict(prune=0.3, cutmix=1.0), "prune must be 0 with mixup or cutmix"),
        (dict(fallback_lr_scale=0.0), "fallback_lr_scale must be greater than 0; got 0.0"),
        (dict(opt="sgd", fallback_lr_scale=0.1), "fallback_lr_scale must be 1 unless opt is muon"),
    ],
)
def test_values_that_no_recipe_has(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**values)


def test_what_is_decayed():
    model = timm.create_model(MODEL)
    total = len(list(model.parameters()))
    for recipe in RECIPES.values():
        decayed = [g for g in recipes.create_optimizer(recipe, model).param_groups if g["weight_decay"]]
        parameters = [p for group in decayed for p in group["params"]]
        assert {group["weight_decay"] for group in decayed} == {recipe.weight_decay}
        assert len(parameters) == total if recipe.decay_all else all(p.ndim > 1 for p in parameters)


def test_fallback_lr_scale_slows_norms_and_biases_alone():
    """The first update of AdamW is the learning rate in size; Muon's does not know of the scale."""
    moved = {}
    for scale in (1.0, 0.1):
        torch.manual_seed(0)
        # none narrower: Muon leaves what has fewer than four rows to AdamW, too
        model = timm.create_model(MODEL, depths=(1, 0, 0), widths=(16, 16, 16), mask_pools=(1, 1, 1))
        optimizer = recipes.create_optimizer(Recipe(weight_decay=0.0, fallback_lr_scale=scale), model)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model(torch.randn(8, 3, 32, 32)).square().sum().backward()
        optimizer.step()
        moved[scale] = {name: (p.detach() - before[name]).abs().max().item() for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        ratio = moved[0.1][name] / moved[1.0][name]
        assert ratio == pytest.approx(1.0 if parameter.ndim > 1 else 0.1, rel=0.01), name


def test_mixed_targets_are_distributions():
    recipe = Recipe(mixup=0.5, cutmix=1.0)
    mixup, loss = recipes.create_mixup(recipe, 10), recipes.create_loss(recipe)
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8)
    mixed, targets = mixup(images.clone(), labels)
    assert targets.shape == (8, 10) and torch.allclose(targets.sum(1), torch.ones(8)) and not torch.equal(mixed, images)
    logits = torch.randn(8, 10)
    assert torch.allclose(loss(logits, targets), -(targets * logits.log_softmax(1)).sum(1).mean())
    assert recipes.create_mixup(Recipe(), 10) is None


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
    assert cifar.run_of(cifar.build_parser().parse_args(arguments)) == run


# --- resuming and stopping


MIXED = ["--mixup", 0.3, "--cutmix", 1, "--cutout", 6]
PRUNED = ["--prune", 0.08, "--crop", 20, "--crop-epochs", 0.5]  # leaves the number of updates of an epoch as it is


@pytest.mark.parametrize("recipe", [MIXED, PRUNED])
@pytest.mark.parametrize("updates", [1, STEPS, STEPS + 2, 3 * STEPS - 2])
def test_a_stopped_run_goes_on_as_if_it_had_not(train, tmp_path, monkeypatch, updates, recipe):
    options = ["--epochs", 3, "--warmup-epochs", 1, "--ema-every", 2, *recipe]
    assert train(*options, out="whole") == 0
    stop_after(monkeypatch, updates, terminate)
    assert train(*options) == 128 + signal.SIGTERM
    monkeypatch.undo()
    assert not (tmp_path / "out" / "result.json").exists()
    assert torch.load(tmp_path / "out" / "last.pt", weights_only=True)["step"] == updates + 1
    assert train(*options, "--resume") == 0
    for name in ("model.safetensors", "ema.safetensors"):
        whole, resumed = (load_file(tmp_path / out / name) for out in ("whole", "out"))
        assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole), name
    assert log_of(tmp_path / "out") == log_of(tmp_path / "whole")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [session["from_update"] for session in result["sessions"]] == [0, updates + 1]


def test_pruned_images_are_the_easy_ones_and_the_rest_stand_for_them(data, tmp_path):
    run = Run(MODEL, Recipe(epochs=2, batch_size=7, warmup_epochs=0, prune=0.4, smoothing=0.0, lr=1e-9, pad=0))
    device = torch.device("cpu")
    pruning = trainer.Trainer(run, runs.load_data(run, data, device), device)
    assert pruning.steps_per_epoch == 6
    given = torch.arange(70.0)
    pruning.losses = given.clone()
    row = pruning.epoch(lambda: False)
    order, weights = pruning.chosen
    assert torch.equal(weights, torch.where(order < 56, 2.0, 1.0)) and len(order) == 42
    seen = torch.zeros(70, dtype=torch.bool)
    seen[order] = True
    assert torch.equal(pruning.losses[~seen], given[~seen])  # what was left out keeps its loss
    losses = pruning.losses[order]
    assert losses.max() < 10 and not torch.isin(losses, given).any()
    assert row["loss"] == pytest.approx(float((losses * weights).sum() / weights.sum()), abs=1e-3)
    first = order
    assert not torch.equal(pruning.choose()[0], first)  # the next epoch draws anew


def test_another_seed_is_another_run(train, tmp_path):
    for seed in (0, 1):
        train("--epochs", 1, "--warmup-epochs", 0, "--seed", seed, out=f"seed{seed}")
    first, second = (load_file(tmp_path / f"seed{seed}" / "model.safetensors") for seed in (0, 1))
    assert not torch.equal(first["head.fc.weight"], second["head.fc.weight"])


def test_max_seconds_leaves_a_checkpoint_that_loads(train, tmp_path, capsys):
    assert train("--epochs", 3, "--max-seconds", 0) == 0
    assert "stopped after 0 of 12 updates; go on with --resume" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.json", "last.pt", "log.jsonl"}
    kwargs = dict(depths=(1, 0, 0), widths=(8, 8, 16), mask_pools=(1, 1, 1))
    model = timm.create_model(MODEL, checkpoint_path=str(tmp_path / "out" / "last.pt"), **kwargs)
    fresh = Run(MODEL, Recipe(), kwargs).create_model()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))


@needs_wsd
def test_a_wsd_run_is_prolonged_before_its_decay_only(train, tmp_path, monkeypatch, capsys):
    wsd = ["--sched", "wsd", "--warmup-epochs", 1, "--decay-epochs", 1]
    stop_after(monkeypatch, 2 * STEPS, terminate)
    assert train("--epochs", 5, *wsd, out="first") == 143
    monkeypatch.undo()
    source = tmp_path / "first" / "last.pt"
    assert train("--epochs", 4, *wsd, "--resume", source, out="prolonged") == 0
    assert train("--epochs", 4, *wsd, out="whole") == 0
    whole, prolonged = (load_file(tmp_path / out / "model.safetensors") for out in ("whole", "prolonged"))
    assert all(torch.equal(whole[key], prolonged[key]) for key in whole)
    done = tmp_path / "prolonged" / "last.pt"
    with pytest.raises(SystemExit, match="2"):
        train("--epochs", 8, *wsd, "--resume", done, out="late")
    assert "the checkpoint is of another run: it has epochs 4 and not 8" in capsys.readouterr().err
    assert not (tmp_path / "late").exists()


def test_a_finished_run_is_left_as_it_is(train, tmp_path):
    assert train("--epochs", 1, "--warmup-epochs", 0) == 0
    before = (tmp_path / "out" / "result.json").read_bytes()
    assert train("--epochs", 1, "--warmup-epochs", 0, "--resume") == 0
    assert (tmp_path / "out" / "result.json").read_bytes() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("mixup", [0.0, 0.3])
def test_an_update_never_waits_for_the_gpu(data, mixup):
    recipe = Recipe(batch_size=16, epochs=3, mixup=mixup, cutout=4, ema_every=1)
    device = torch.device("cuda")
    run = Run(MODEL, recipe)
    training, updates = trainer.Trainer(run, runs.load_data(run, data, device), device), iter(range(STEPS))

    def watch():
        update = next(updates)
        torch.cuda.set_sync_debug_mode("error" if update in (1, 2) else "default")
        return update == STEPS - 1

    try:
        assert training.epoch(watch) is None and training.step == STEPS - 1
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- what it writes


def test_what_the_result_says(train, tmp_path, data):
    assert train("--epochs", 2, "--warmup-epochs", 0, "--seed", 7, "--eval-every", 1, "--label-noise", 0.4) == 0
    out = tmp_path / "out"
    result, log = json.loads((out / "result.json").read_text()), log_of(out)
    assert [row["epoch"] for row in log] == [1, 2]
    assert result["error"] == log[-1]["error"] and result["error_ema"] == log[-1]["error_ema"]  # of the last epoch
    assert result["held_out"] == "test, 30 images" and result["training_images"] == 70 and result["seed"] == 7
    assert {"command", "commit", "hardware", "versions", "schedule", "sessions"} <= result.keys()
    assert result["schedule"]["label_noise"] == 0.4 and "--label-noise 0.4" in result["command"]
    assert 0 <= result["share_outside"] < 1 and result["images_per_second"] > 0
    assert str(tmp_path) not in (out / "result.json").read_text()
    config = json.loads((out / "config.json").read_text())
    assert config == {"command": result["command"], **result["schedule"]} and log[-1]["dead"] == result["dead"]
    kwargs = dict(depths=(1, 0, 0), widths=(8, 8, 16), mask_pools=(1, 1, 1))
    images, labels = runs.load_cifar(data, "test")
    for name, error in (("model", result["error"]), ("ema", result["error_ema"])):
        model = timm.create_model(MODEL, **kwargs).to(memory_format=torch.channels_last)
        model.load_state_dict(load_file(out / f"{name}.safetensors"))
        assert trainer.error_percent(model, images, labels) == pytest.approx(error, abs=1e-3)
    assert not list(out.glob("*.part"))


def test_validation_reads_no_test_set(data, train, tmp_path):
    folder = tmp_path / "only_train"
    folder.mkdir()
    (folder / "train.npz").symlink_to(data / "train.npz")
    assert train("--epochs", 1, "--warmup-epochs", 0, "--val-images", 20, data_dir=folder) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["held_out"] == "validation, 20 images" and result["training_images"] == 50


def test_smaller_crops_come_first_and_what_they_are_is_the_run_s(data):
    recipe = Recipe(epochs=4, batch_size=16, crop=24, crop_epochs=0.5, sched="wsd", warmup_epochs=0, decay_epochs=1)
    device = torch.device("cpu")
    run = Run(MODEL, recipe)
    training = trainer.Trainer(run, runs.load_data(run, data, device), device)
    sides = []
    for training.step in range(4 * STEPS):
        sides.append(training.batch(torch.arange(16))[0].shape[-1])
    assert sides == [24] * 2 * STEPS + [32] * 2 * STEPS
    longer = replace(run, recipe=replace(recipe, epochs=8))
    runs.check_same_run(run.as_dict(), longer, 2 * STEPS, STEPS)
    with pytest.raises(ValueError, match="it has epochs 4 and not 8"):
        runs.check_same_run(run.as_dict(), longer, 2 * STEPS + 1, STEPS)


def test_dead_channels_are_counted_and_nothing_else_changes():
    norms = torch.nn.BatchNorm2d(4), BatchNormAct2d(4)  # the ReLU after the norm, and inside it
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), norms[0], torch.nn.ReLU(inplace=True), norms[1]).train()
    norms[1].bias.data.fill_(1.0)  # lets a channel through that was dead before it
    images = torch.randn(5, 3, 6, 6)
    assert dead.dead_share(net, images) == 0
    for norm, channels in zip(norms, ([1], [0, 3]), strict=True):
        norm.bias.data[channels] = -1e3
    before, state = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    assert dead.dead_share(net, images) == pytest.approx(3 / 8)
    assert net.training and all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in net.modules())


def test_noise_is_on_the_training_labels_only(data):
    run = Run(MODEL, Recipe(batch_size=16), val_images=20, label_noise=1.0)
    loaded = runs.load_data(run, data, torch.device("cpu"))
    images, labels = runs.load_cifar(data, "train")
    by_image = {image.numpy().tobytes(): label for image, label in zip(images, labels.tolist(), strict=True)}
    assert all(by_image[i.numpy().tobytes()] == label for i, label in zip(*loaded.held_out, strict=True))
    assert all(by_image[i.numpy().tobytes()] != y for i, y in zip(loaded.images, loaded.labels, strict=True))


def test_error_percent_counts():
    class First(torch.nn.Module):
        def forward(self, x):
            return -x.mean((2, 3))

    images = torch.zeros(10, 3, 4, 4, dtype=torch.uint8)
    images[:, 1:] = 200  # class 0 is the least everywhere
    labels = torch.tensor([0] * 7 + [1, 2, 2])
    assert trainer.error_percent(First(), images, labels, batch_size=4) == pytest.approx(30.0)


def test_stopwatch_sums_what_is_inside(monkeypatch):
    clock = iter([1.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: next(clock))
    watch = trainer.Stopwatch(torch.device("cpu"))
    for _ in range(2):
        watch.start()
        watch.stop()
    assert watch.seconds() == pytest.approx(2.5)


# --- what it refuses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label-noise", "2"], "label_noise must be from 0 to 1; got 2.0"),
        (["--crop", "33"], "crop must be 0 or from 2 to 32, the image's side; got 33"),
        (["--crop", "1"], "crop must be 0 or from 2 to 32"),
        (["--lr", "0"], "lr must be greater than 0"),
        (["--images", "0"], "images must be from 1 to 70"),
        (["--images", "71"], "images must be from 1 to 70"),
        (["--images", "10"], "batch_size must be at most 10"),
        (["--val-images", "70"], "val_images must be from 0 to 69"),
        (["--model", "resattn57"], "resattn57"),
        (["--model-kwargs", "depths"], "argument --model-kwargs: must be KEY=VALUE pairs of Python values; got depths"),
        (["--model-kwargs", "depth=3"], "depth"),
        (["--model-kwargs", "attn_act=x"], "attn_act must be one of 'mixed', 'channel', 'spatial'; got 'x'"),
        (["--device", "gpu"], "--device must be cpu, cuda"),
        (["--opt", "sdg"], "opt must be one of timm.optim.list_optimizers(), as sgd or adamw; got 'sdg'"),
        (["--seed", "-1"], "seed must be"),
        (["--eval-every", "-1"], "--eval-every must be"),
        (["--stop-epoch", "-1"], "--stop-epoch must be"),
        (["--max-seconds", "-1"], "--max-seconds must be"),
        (["--dataset", "cifar100", "--data-dir", "/nowhere"], "/nowhere holds neither train.npz nor an image folder"),
        (["--resume", "/nowhere/last.pt"], "/nowhere/last.pt is not there"),
        (["--init", "/nowhere/last.pt"], "/nowhere/last.pt is not there"),
    ],
)
def test_bad_options_are_one_sentence(train, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        train("--epochs", 3, *options)
    error = capsys.readouterr().err.partition("error: ")[2]
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_init_begins_with_a_shallower_network(train, tmp_path):
    train("--epochs", 1, "--warmup-epochs", 0, out="shallow")
    begin = tmp_path / "shallow" / "last.pt"
    deeper = ["--model-kwargs", "depths=(1,0,2)", "widths=(8,8,16)", "mask_pools=(1,1,1)"]
    begun = ["--epochs", 2, "--warmup-epochs", 0, "--init", begin, *deeper]
    train(*begun, "--max-seconds", 0, out="deep")
    before, after = (torch.load(tmp_path / name / "last.pt") for name in ("shallow", "deep"))
    shared = before["state_dict"].keys() & after["state_dict"].keys()
    taken = [name for name in shared if torch.equal(before["state_dict"][name], after["state_dict"][name])]
    assert "stem.conv.weight" in taken and any(".pre." in name for name in taken)
    assert all(torch.equal(after["state_dict"][name], ema) for name, ema in after["state_dict_ema"].items())
    begin.unlink()  # going on needs no more than the run itself
    train(*begun, "--resume", out="deep")
    result = json.loads((tmp_path / "deep" / "result.json").read_text())
    assert (result["start"]["updates"], result["start"]["run"]) == (STEPS, before["run"])
    assert result["start"]["training_seconds"] == pytest.approx(before["log"][0]["seconds"], abs=0.06)
    assert f"--init {begin}" in result["command"]


def test_init_begins_with_a_file_of_weights(train, tmp_path, capsys):
    train("--epochs", 1, "--warmup-epochs", 0, out="first")
    weights = tmp_path / "first" / "ema.safetensors"
    train("--epochs", 2, "--warmup-epochs", 0, "--init", weights, "--max-seconds", 0, out="second")
    begun = torch.load(tmp_path / "second" / "last.pt")
    assert begun["step"] == 0
    for name, tensor in load_file(weights).items():
        assert torch.equal(begun["state_dict"][name], tensor) and torch.equal(begun["state_dict_ema"][name], tensor)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    train("--epochs", 2, "--warmup-epochs", 0, "--init", weights, "--resume", out="second")
    result = json.loads((tmp_path / "second" / "result.json").read_text())
    assert result["start"] == {"file": "ema.safetensors", "sha256": digest}
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SystemExit, match="2"):
        train("--epochs", 1, "--warmup-epochs", 0, "--init", tmp_path / "other.safetensors", out="third")
    assert "the weights have 0 blocks there" in capsys.readouterr().err and not (tmp_path / "third").exists()


def test_init_knows_the_weights_that_ship():
    path = WEIGHTS / "resattn56_cifar.cifar10.safetensors"
    _, start = outputs.read_start(path)
    assert start["manifest"] == outputs.read_manifest()[path.name] and start["manifest"]["sha256"] == start["sha256"]


def test_stop_epoch(train, tmp_path, capsys):
    assert train("--epochs", 3, "--stop-epoch", 2) == 0
    assert f"stopped after {2 * STEPS} of {3 * STEPS} updates" in capsys.readouterr().err
    assert len(log_of(tmp_path / "out")) == 2 and not (tmp_path / "out" / "result.json").exists()
    assert train("--epochs", 3, "--stop-epoch", 2, "--resume") == 0  # is there already
    assert len(log_of(tmp_path / "out")) == 2
    assert train("--epochs", 3, "--resume") == 0
    train("--epochs", 3, out="whole")
    stopped, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "whole"))
    assert all(torch.equal(stopped[name], tensor) for name, tensor in whole.items())


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
    run = cifar.run_of(cifar.build_parser().parse_args(given))
    assert Run.from_dict(run.as_dict()) == replace(run, model_kwargs=run.as_dict()["model_kwargs"])


def test_init_of_another_network_is_refused(train, tmp_path, capsys):
    train("--epochs", 1, "--warmup-epochs", 0, out="shallow")
    narrow = ["--model-kwargs", "depths=(1,0,0)", "widths=(8,8,8)", "mask_pools=(1,1,1)"]
    with pytest.raises(SystemExit, match="2"):
        train("--epochs", 1, "--warmup-epochs", 0, "--init", tmp_path / "shallow" / "last.pt", *narrow)
    assert "misshapen" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_runs_are_not_mixed_up(train, tmp_path, capsys):
    train("--epochs", 3, "--max-seconds", 0)
    for options, message in (
        ([], "holds a run; give --resume to go on with it, or another --out"),
        (["--resume", "--lr", 0.3], "the checkpoint is of another run: it has lr 0.02 and not 0.3"),
        (["--resume", "--seed", 4], "it has seed 0 and not 4"),
        (["--resume", "--init", "x.pt"], "it has init None and not x.pt"),
    ):
        with pytest.raises(SystemExit, match="2"):
            train("--epochs", 3, *options)
        assert message in capsys.readouterr().err


def test_a_run_goes_on_with_its_own_data_only(train, tmp_path, capsys):
    train("--epochs", 3, "--max-seconds", 0)
    (tmp_path / "more").mkdir()
    random_cifar(tmp_path / "more", 71, 30)
    with pytest.raises(SystemExit, match="2"):
        train("--epochs", 3, "--resume", data_dir=tmp_path / "more")
    assert "the checkpoint is of a run on 70 images, not on 71" in capsys.readouterr().err


class Payload:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", [b"", b"PK broken", {"step": 1}, Payload()])
def test_a_file_that_is_no_checkpoint(train, tmp_path, capsys, content):
    path = tmp_path / "x.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(SystemExit, match="2"):
        train("--epochs", 3, "--resume", path)
    printed = capsys.readouterr()
    assert str(path) in printed.err and "Traceback" not in printed.err and not printed.out


def test_a_loss_that_is_not_finite_ends_the_run(train, capsys, tmp_path):
    assert train("--epochs", 3, "--warmup-epochs", 0, "--lr", 1e30) == 1
    assert "the loss is not finite in epoch" in capsys.readouterr().err
    assert not (tmp_path / "out" / "result.json").exists()


def test_every_value_of_a_recipe_has_an_option():
    args = cifar.build_parser().parse_args([*SMALL, "--data-dir", "x", "--out", "y"])
    assert {field.name for field in fields(Recipe)} <= vars(args).keys()
    plain = {"batch_size": 16, "prune": 0, "crop": 0, "cutout": 0}
    assert asdict(arguments.recipe_of(args)) == {**asdict(RECIPES["modern"]), **plain}
