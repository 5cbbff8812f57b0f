"""What is measured together, and what the commands refuse."""

import pytest
import torch

from benchmarks.speed import __main__ as speed
from benchmarks.speed import contenders, memory, plans
from benchmarks.speed.plans import DEFAULT, RETAINED


def test_every_contender_of_a_plan_can_be_built_by_name():
    for device in ("cpu", "cuda"):
        for part in plans.PARTS:
            for found in plans.plan(part, "resattn56", 8, 224, device):
                paths = contenders.TRAINING_PATHS if part == "train" else contenders.PATHS
                assert {contender.path for contender in found.contenders} <= set(paths)
                assert {contender.dtype for contender in found.contenders} <= {
                    "float32",
                    "bfloat16",
                    "autocast",
                    "int8",
                }
                assert len(set(found.contenders)) == len(found.contenders)


def test_the_allocator_as_it_comes_is_measured_before_it_is_changed():
    for part in ("main", "train"):
        allocators = [found.allocator for found in plans.plan(part, "resattn56", 8, 224, "cpu")]
        assert allocators == [DEFAULT, RETAINED]
    main = plans.plan("main", "resattn56", 8, 224, "cpu")
    assert not any(contender.path == "optimized" for contender in main[0].contenders)


@pytest.mark.parametrize("model", ["resattn_inception56", "resattnext56_32x4d", "resattn56_cifar"])
def test_a_network_without_a_port_is_measured_alone(model):
    for part in ("main", "train"):
        for found in plans.plan(part, model, 8, 224, "cpu"):
            assert {contender.network for contender in found.contenders} == {model}


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        (speed, ["--rounds", "4"], "--rounds must be at least 5"),
        (speed, ["--threads", "0"], "--threads must be at least 1"),
        (speed, ["--img-size", "16", "--out", "OUT"], "--img-size must be at least 32"),
        (speed, ["--model", "resattn57", "--out", "OUT"], "there is no network 'resattn57'"),
        (speed, ["--model", "resattn92"], "give --out DIR"),
        (speed, ["--only", "nothing-like-this", "--out", "OUT"], "no contender has that in its name"),
        (speed, ["--profile", "resattn56/slow", "--out", "OUT"], "--profile takes resattn56/convolutions/"),
        (speed, ["--part", "int8", "--device", "cuda"], "--part int8 is measured on a CPU"),
        (speed, ["--part", "speed"], "invalid choice"),
        (speed, ["--out", "FILE"], "is no folder"),
        (memory, ["--repeats", "0"], "--repeats must be at least 1"),
        (memory, ["--batch-size", "4"], "give --out DIR"),
        (memory, ["--out", "FILE"], "is no folder"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(script, words, message, tmp_path, capsys):
    (tmp_path / "FILE").touch()
    words = [str(tmp_path / word) if word in ("OUT", "FILE") else word for word in words]
    with pytest.raises(SystemExit) as stop:
        script.main(words)
    assert stop.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in last
    assert not (tmp_path / "OUT").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("script", [speed, memory])
def test_cuda_without_a_gpu_is_refused(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--device", "cuda"])
    assert "no GPU is there" in capsys.readouterr().err


def test_the_command_that_is_recorded_repeats_the_run():
    parser = speed.build_parser()
    words = ["--part", "train", "--only", "eager", "folded", "--rounds", "9"]
    command = speed.command_of(parser, parser.parse_args([*words, "--out", "x"]))
    assert command == "python -m benchmarks.speed --part train --only eager folded --rounds 9"
