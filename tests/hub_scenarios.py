"""What `test_hub` runs in processes of their own: huggingface_hub reads its environment when it is imported.

    python hub_scenarios.py online FOLDER   # against a loopback hub, which it starts
    python hub_scenarios.py offline FOLDER  # afterwards, with the hub gone and HF_HUB_OFFLINE=1

Writes what happened to ``FOLDER/online.json`` and ``FOLDER/offline.json``.
"""

import io
import json
import os
import sys
from pathlib import Path

from hub_server import Hub

# the last one is what other options and the offline call are compared with
DONORS = {
    "resattn101": "resnetv2_101",
    "resattn50_postact": "resnet50",
    "resattn101_postact": "resnet101",
    "resattnext50_32x4d": "resnext50_32x4d",
    "resattnext92_32x4d": "resnext50_32x4d",
    "resattnext101_32x4d": "resnext101_32x4d",
    "resattnext101_32x8d": "resnext101_32x8d",
    "resattn50": "resnetv2_50",
    "resattn92": "resnetv2_50",
}


def online(folder: Path) -> dict:
    hub = Hub()
    os.environ.update(HF_ENDPOINT=hub.url, HF_HOME=str(folder / "hf"), TORCH_HOME=str(folder / "torch"))
    import torch

    torch.set_num_threads(1)
    with hub, torch.inference_mode():
        return {**healthy(hub, folder), **healthy_url(hub)}


def healthy(hub, folder):
    """The plain call, from the cache with other options, and the other kind of unit."""
    import timm
    import torch
    from helpers import images, lived_in, relative_error
    from safetensors.torch import save

    import timm_resattn  # noqa: F401

    found = {}
    for name, donor_name in DONORS.items():
        repo = timm.get_pretrained_cfg(name).hf_hub_id
        if repo not in hub.repos:  # the only one that is held: they have up to 350 MB
            donor = lived_in(timm.create_model(donor_name), batch=2)
            hub.repos = {repo: {"model.safetensors": save(donor.state_dict())}}
        model = timm.create_model(name, pretrained=True).eval()
        x = images(96)
        logits, wanted = model(x), donor(x)
        differ = relative_error(wanted[:1], wanted[1:])
        found[name] = dict(repo=repo, error=relative_error(logits, wanted), differ=differ)
    torch.save((x, wanted), folder / "logits.pth")

    hub.requests.clear()
    other = timm.create_model("resattn92", pretrained=True, num_classes=7, in_chans=1).eval()
    grey = images(64)[:, :1]
    features = model.forward_features(grey.expand(-1, 3, -1, -1))
    found["num_classes=7, in_chans=1"] = dict(
        shape=list(other(grey).shape), error=relative_error(other.forward_features(grey), features)
    )
    backbone = timm.create_model("resattn92", pretrained=True, features_only=True).eval()
    maps = model.forward_intermediates(x, intermediates_only=True)
    found["features_only"] = dict(
        channels=backbone.feature_info.channels(), error=max(map(relative_error, backbone(x), maps))
    )
    found["downloads of later calls"] = [request for request in hub.requests if request.startswith("GET")]
    return found


def dump(model):
    import torch

    buffer = io.BytesIO()
    torch.save({"state_dict": model.state_dict()}, buffer)
    return buffer.getvalue()


def healthy_url(hub):
    import timm
    from helpers import images, live_in, relative_error
    from pytorchcv.model_provider import get_model

    reference = live_in(get_model("resattnet56"))
    hub.files["/v0.1.0/resattnet56.pth"] = dump(reference)
    overlay = dict(url=f"{hub.url}/v0.1.0/resattnet56.pth")
    model = timm.create_model("resattn56_dskip", pretrained=True, pretrained_cfg_overlay=overlay).eval()
    x = images(224, batch=1)
    return {"url": dict(error=relative_error(model(x), reference(x)))}


def offline(folder: Path) -> dict:
    os.environ.update(HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(folder / "hf"))
    import timm
    import torch
    from helpers import relative_error

    import timm_resattn  # noqa: F401

    x, wanted = torch.load(folder / "logits.pth")
    with torch.inference_mode():
        error = relative_error(timm.create_model("resattn92", pretrained=True).eval()(x), wanted)
    return {"resattn92": dict(error=error)}


if __name__ == "__main__":
    scenario, target = sys.argv[1], Path(sys.argv[2])
    result = {"online": online, "offline": offline}[scenario](target)
    (target / f"{scenario}.json").write_text(json.dumps(result))
