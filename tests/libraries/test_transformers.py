"""transformers: classifiers of a converted folder, backbones, and DETR on one of ours."""

import pytest
import timm
import torch
from PIL import Image

from timm_resattn.convert import convert

transformers = pytest.importorskip("transformers")
detr = pytest.importorskip("transformers.models.detr.modeling_detr")

X = torch.randn(2, 3, 45, 38, generator=torch.Generator().manual_seed(3))


def test_classifier_of_a_converted_folder(tmp_path):
    source = timm.create_model("resattn56_cifar", num_classes=3).eval()
    torch.save(source.state_dict(), tmp_path / "source.pth")
    folder = convert(tmp_path / "source.pth", tmp_path / "out", "resattn56_cifar", label_names=("a", "b", "c"))
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    with torch.no_grad():
        assert torch.equal(model(X).logits, source(X))
        assert torch.equal(timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(X), source(X))
    model.train()(X, labels=torch.tensor([0, 2])).loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    classify = transformers.pipeline("image-classification", model=str(folder))
    assert {answer["label"] for answer in classify(Image.new("RGB", (40, 40)))} == {"a", "b", "c"}


@pytest.mark.parametrize("freeze", [False, True])
def test_backbone(freeze):
    config = transformers.TimmBackboneConfig(
        backbone="resattn56_cifar", out_indices=[1, 3], freeze_batch_norm_2d=freeze, use_pretrained_backbone=False
    )
    model = transformers.TimmBackbone(config).eval()
    twin = timm.create_model("resattn56_cifar", features_only=True, out_indices=(1, 3)).eval()
    twin.load_state_dict(model._backbone.state_dict(), strict=not freeze)  # frozen norms count no batches
    maps = model(X).feature_maps
    assert model.channels == [64, 256]
    for fmap, expected in zip(maps, twin(X), strict=True):
        assert torch.allclose(fmap, expected, rtol=1e-4, atol=1e-4)
    sum(fmap.mean() for fmap in maps).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_convolutions_of_detr():
    config = transformers.DetrConfig(
        backbone_config=transformers.TimmBackboneConfig(backbone="resattn56_cifar", out_indices=[1, 2, 3])
    )
    encoder = detr.DetrConvEncoder(config).eval()
    twin = timm.create_model("resattn56_cifar", features_only=True, out_indices=(1, 2, 3))
    twin.load_state_dict(encoder.model.state_dict(), strict=False)  # frozen norms count no batches
    with torch.no_grad():
        maps = [fmap for fmap, mask in encoder(X, torch.ones(2, 45, 38))]
        assert encoder.intermediate_channel_sizes == [64, 128, 256]
        for fmap, expected in zip(maps, twin.eval()(X), strict=True):
            assert torch.allclose(fmap, expected, rtol=1e-4, atol=1e-4)


def test_detr_trains():
    config = transformers.DetrConfig(
        backbone_config=transformers.TimmBackboneConfig(backbone="resattn56_cifar", out_indices=[3]),
        num_labels=2, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=4,
    )  # fmt: skip
    model = transformers.DetrForObjectDetection(config).train()
    labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.3]])}] * 2
    found = model(X, labels=labels)
    assert found.pred_boxes.shape == (2, 4, 4)
    found.loss.backward()
    backbone = [p for name, p in model.named_parameters() if "backbone" in name]
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in backbone)
