"""Lightning trains a network, synchronises its norms, and its checkpoint is read."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from timm_resattn.checkpoints import load_weights, read_file

lightning = pytest.importorskip("lightning")


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = timm.create_model("resattn56_cifar", num_classes=3)

    def training_step(self, batch):
        images, labels = batch
        return F.cross_entropy(self.model(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def test_training_and_its_checkpoint(tmp_path):
    data = TensorDataset(torch.randn(8, 3, 33, 35), torch.arange(8) % 3)
    trainer = lightning.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False
    )
    module = Classifier()
    before = module.model.head.fc.weight.detach().clone()
    trainer.fit(module, DataLoader(data, batch_size=4))
    assert not torch.equal(module.model.head.fc.weight, before)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fresh = timm.create_model("resattn56_cifar", num_classes=3)
    load_weights(fresh, read_file(tmp_path / "last.ckpt"))
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, module.model.state_dict()[name]), name
