"""What `test_hub` runs in processes of their own: huggingface_hub reads its environment when it is imported.

    python hub_scenarios.py online FOLDER   # against a loopback hub, which it starts
    python hub_scenarios.py offline FOLDER  # afterwards, with the hub gone and HF_HUB_OFFLINE=1

Writes what happened to ``FOLDER/online.json`` and ``FOLDER/offline.json``.
"""

import functools
import io
import json
import os
import sys
import time
from pathlib import Path

from hub_server import Hub

# fault -> tag of resattnext92_32x4d, whose donor's repository has it
FAULTS = {
    "missing repository": "tv2_in1k",
    "missing file": "tv_in1k",
    "connection cut": "a1_in1k",
    "damaged header": "a2_in1k",
    "damaged number": "a3_in1k",
    "truncated on the hub": "ra_in1k",
    (DOWN := "hub is down"): "gluon_in1k",
}
SMALL = dict(widths=(32, 64, 128, 256), groups=4, num_classes=10)


def donor_repo(tag):
    return f"timm/resnext50_32x4d.{tag}"


def try_to_load(**kwargs):
    """None, or type and message of the error."""
    import timm

    try:
        timm.create_model(**kwargs, pretrained=True)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return None


def load_small(tag):
    name = f"resattnext92_32x4d.{tag}"
    return try_to_load(model_name=name, **SMALL, pretrained_cfg_overlay=dict(num_classes=10))


def online(folder: Path) -> dict:
    hub = Hub()
    os.environ.update(HF_ENDPOINT=hub.url, HF_HOME=str(folder / "hf"), TORCH_HOME=str(folder / "torch"))
    import torch

    torch.set_num_threads(1)
    really_sleep = time.sleep
    time.sleep = lambda seconds: really_sleep(min(seconds, 0.01))  # between retries
    with hub, torch.inference_mode():
        found = {**healthy(hub, folder), **healthy_url(hub), **faults_of_a_url(hub, folder)}
        found.update(faults(hub, folder))
    found[DOWN] = dict(first=load_small(FAULTS[DOWN]))
    with Hub(like=hub) as hub:
        for fault, tag in FAULTS.items():
            hub.repos[donor_repo(tag)] = {"model.safetensors": small_donor()}
            found[fault].update(then=load_small(tag), later=load_small(tag))
    return found


def healthy(hub, folder):
    """The plain call, from the cache with other options, and the other kind of unit."""
    import timm
    import torch
    from helpers import images, lived_in, relative_error
    from safetensors.torch import save

    import timm_resattn  # noqa: F401

    found = {}
    for name, donor_name in (("resattnext92_32x4d", "resnext50_32x4d"), ("resattn92", "resnetv2_50")):
        donor = lived_in(timm.create_model(donor_name), batch=2)
        hub.repos[f"timm/{donor_name}.a1h_in1k"] = {"model.safetensors": save(donor.state_dict())}
        model = timm.create_model(name, pretrained=True).eval()
        x = images(96)
        logits, wanted = model(x), donor(x)
        found[name] = dict(error=relative_error(logits, wanted), differ=relative_error(wanted[:1], wanted[1:]))
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


@functools.cache
def small_donor():
    from donors import small_resnext
    from safetensors.torch import save

    return save(small_resnext(layers=(2, 2, 2, 2)).state_dict())


def faults(hub, folder):
    """What each fault is answered with, and what it leaves in the cache."""
    good = small_donor()
    repos = {fault: donor_repo(tag) for fault, tag in FAULTS.items() if fault != DOWN}
    hub.repos.update({repo: {"model.safetensors": good} for repo in repos.values()})
    del hub.repos[repos["missing repository"]]
    hub.repos[repos["missing file"]] = {}
    hub.repos[repos["truncated on the hub"]] = {"model.safetensors": good[:-100]}
    for fault, damage in {
        "connection cut": lambda content: content[:1000],
        "damaged header": lambda content: content[:9] + b"\0" + content[10:],
        "damaged number": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    }.items():
        hub.damage[f"/{repos[fault]}/resolve/main/model.safetensors"] = damage
    found = {fault: dict(first=load_small(FAULTS[fault])) for fault in repos}
    left = []
    for repo in repos.values():
        cache = folder / "hf" / "hub" / f"models--{repo.replace('/', '--')}"
        left += [str(path) for pattern in ("blobs/*", "snapshots/*/*") for path in cache.glob(pattern)]
    return {**found, "left in the cache": left}


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


def faults_of_a_url(hub, folder):
    import timm

    call = dict(model_name="resattn128_cifar", pretrained_cfg_overlay=dict(url=f"{hub.url}/cifar.pth"))
    found = {"url, missing": dict(first=try_to_load(**call))}
    hub.files["/cifar.pth"] = dump(timm.create_model("resattn128_cifar"))
    hub.damage["/cifar.pth"] = lambda content: content[:-1000]
    found["url, connection cut"] = dict(first=try_to_load(**call))
    hub.damage.clear()
    then = try_to_load(**call)
    hub.files.clear()
    for fault in found.values():
        fault.update(then=then, later=try_to_load(**call))
    cached = folder / "torch" / "hub" / "checkpoints" / "cifar.pth"
    cached.write_bytes(b"what somebody else left there")
    found["url, foreign file"] = dict(first=try_to_load(**call), kept=cached.exists())
    return found


def offline(folder: Path) -> dict:
    os.environ.update(HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(folder / "hf"))
    import timm
    import torch
    from helpers import relative_error

    import timm_resattn  # noqa: F401

    x, wanted = torch.load(folder / "logits.pth")
    with torch.inference_mode():
        error = relative_error(timm.create_model("resattn92", pretrained=True).eval()(x), wanted)
    return {"resattn92": dict(error=error), "not cached": dict(first=load_small("fb_ssl_yfcc100m_ft_in1k"))}


if __name__ == "__main__":
    scenario, target = sys.argv[1], Path(sys.argv[2])
    result = {"online": online, "offline": offline}[scenario](target)
    (target / f"{scenario}.json").write_text(json.dumps(result))
