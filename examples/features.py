"""Feature maps of a picture, as a detector or a segmenter takes them.

python examples/features.py photo.jpg [--model resattn50] [--img-size 224] [--pretrained]
"""

import argparse

import timm
import torch

import timm_resattn  # noqa: F401  registers the networks
from timm_resattn.pictures import read_picture


def main() -> None:
    """Print stride and shape of each map."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("--model", default="resattn50")
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--pretrained", action="store_true", help="download the weights")
    args = parser.parse_args()
    try:
        picture = read_picture(args.image)
    except ValueError as error:
        parser.error(str(error))
    backbone = timm.create_model(args.model, pretrained=args.pretrained, features_only=True).eval()
    config = timm.data.resolve_model_data_config(backbone, {"img_size": args.img_size})
    image = timm.data.create_transform(**config)(picture)
    with torch.inference_mode():
        maps = backbone(image[None])
    for stride, x in zip(backbone.feature_info.reduction(), maps, strict=True):
        print(f"stride {stride}: {tuple(x.shape)}")


if __name__ == "__main__":
    main()
