"""Pytest plugin that turns timm's own `tests/test_models.py`, unmodified, onto the models of this package.

timm's tests ask `timm.list_models` for their models while they are collected. This plugin answers with our
models only, hands our names to those general tests that list timm's models by hand, and deselects what is
left: tests of other families. It changes timm for its whole process, so only a process of its own loads it.
"""

from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

import pytest
import timm

import timm_resattn  # noqa: F401  (registers the models)

MODULE = "resattn"
OURS: list[str] = timm.list_models(module=MODULE)

# Tests of a general contract that timm runs over names written into the file: ours take their place. The
# value is what completes a parameter set after the model name, for tests that parametrise more than the name.
# Three more look general and are not, timm's own ResNetV2 fails them: they want networks without a final norm
# (test_forward_after_prune_intermediate_layers), entrypoints that take `feature_cfg`
# (test_model_forward_torchscript_with_features_fx), an `init_weights` that resets norm layers as well
# (test_model_init_weights_after_to_empty).
BORROWED: dict[str, tuple[Any, ...]] = {
    "test_reset_classifier_keeps_pool": (),
    "test_features_only_grad_checkpointing_backward": (),
    "test_model_features_output_stride": (),
    "test_feature_getter_stage_ends_torchscript": (),
    "test_features_only_feature_cls_class": (),
    "test_prune_intermediate_layers_params_used": (),
    "test_prune_intermediate_layers_last_feature": (True,),  # the final features hold with stop_early too
    "test_prune_to_stem_feature": (),
    "test_forward_intermediates_stop_early_final_norm": ({},),
    "test_head_hidden_size": ({},),
    "test_resnetv2_stem_feature_odd_size": ({},),
}
# These expect the reductions of an ImageNet network: a stem of stride 2, and strides beyond 8 to dilate.
IMAGENET_ONLY = {"test_model_features_output_stride", "test_resnetv2_stem_feature_odd_size"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--resattn-models", default="*", help="name patterns of the models to test")


def selected(config: pytest.Config) -> list[str]:
    patterns = config.getoption("--resattn-models").split()
    return [name for name in OURS if any(fnmatch(name, pattern) for pattern in patterns)]


def pytest_configure(config: pytest.Config) -> None:
    """Restrict the listings in every place that a test file imports them from."""
    list_all: Callable[..., list[str]] = timm.list_models
    names = selected(config)

    def list_models(filter: Any = "", module: Any = "", **options: Any) -> list[str]:
        # Asked for by module are the networks that have `forward_intermediates`; ours have it.
        found = list_all(filter, module=MODULE, **options)
        if options.get("pretrained"):  # weights that ship with the package; those of a hub need the network
            found = [name for name in found if timm.get_pretrained_cfg(name).file]
        return [name for name in found if name.partition(".")[0] in names]

    def list_pretrained(filter: Any = "", exclude_filters: Any = "") -> list[str]:
        return list_models(filter, pretrained=True, exclude_filters=exclude_filters, include_tags=True)

    for place in (timm, timm.models):
        place.list_models = list_models
        place.list_pretrained = list_pretrained


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Hand our names to the borrowed tests, before pytest reads their marks."""
    test, marks = metafunc.definition.name, metafunc.definition.own_markers
    names = selected(metafunc.config)
    if test in IMAGENET_ONLY:
        names = [name for name in names if not name.endswith("_cifar")]
    if test not in BORROWED or not names:
        return  # as it is, to be deselected if its names are not ours
    ours = [(name, *BORROWED[test]) if BORROWED[test] else name for name in names]
    # A borrowed test that no longer looks like one stops the run here, rather than going missing.
    (index,) = (i for i, m in enumerate(marks) if m.name == "parametrize" and "model_name" in m.args[0])
    marks[index] = pytest.mark.parametrize(marks[index].args[0], ours).mark


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of other families: no parameter `model_name`, or one that is not ours.

    The item that stands for a listing without any model of ours stays, for pytest to report it skipped.
    """
    names = selected(config)

    def is_ours(item: pytest.Item) -> bool:
        callspec = getattr(item, "callspec", None)
        name = callspec.params.get("model_name", "") if callspec else ""
        return not isinstance(name, str) or name.partition(".")[0] in names

    dropped = [item for item in items if not is_ours(item)]
    items[:] = [item for item in items if is_ours(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
