"""A Space on the hub: ``pip install -r requirements.txt; python app.py``."""

import timm

import timm_resattn  # noqa: F401  registers the networks
from timm_resattn.app import build_app

NAMES = ("resattn92_cifar", "resattn56_cifar")
app = build_app({name: timm.create_model(name, pretrained=True).eval() for name in NAMES})

if __name__ == "__main__":
    app.launch()
