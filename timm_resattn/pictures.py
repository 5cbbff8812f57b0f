"""Finding pictures, and reading any kind of them as what a person sees: 8-bit RGB, the right way up."""

import warnings
from pathlib import Path
from typing import List, Sequence, Union

import numpy as np
from PIL import Image, ImageOps

__all__ = ["find_pictures", "read_picture"]

MOST_OBLONG = 100


def find_pictures(paths: Sequence[Union[str, Path]]) -> List[Path]:
    """The files named, and all pictures in the folders named and below, by their suffixes, sorted.

    Raises:
        ValueError: A folder holds no picture.
    """
    formats = _formats()
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in formats}
    found: List[Path] = []
    for path in map(Path, paths):
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
        if path.is_dir() and not inside:
            raise ValueError(f"the folder {str(path)!r} holds no picture.")
        found += inside if path.is_dir() else [path]
    return found


def _formats() -> List[str]:
    """The formats that Pillow reads by itself: for the two others it starts another program, or asks the system."""
    Image.init()
    return [name for name in Image.OPEN if name not in ("EPS", "WMF")]


def read_picture(path: Union[str, Path]) -> Image.Image:
    """A picture as RGB.

    Turned as its EXIF orientation says; of an animation the first frame; transparent parts on white; greys of more
    than eight bits brought to eight: 16 bits by their full range, other numbers, unless between 0 and 1, from their
    least to their greatest.

    Raises:
        ValueError: There is no such file, it is no picture, one side is more than 100 times the other, or it has more
            pixels than Pillow takes to be sane (``2 * Image.MAX_IMAGE_PIXELS``, about 179 million); one sentence.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is {'no file' if path.exists() else 'not there'}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half as many pixels: large, not insane
            with Image.open(path, formats=_formats()) as file:
                if max(file.size) > MOST_OBLONG * min(file.size):  # its short side becomes a network's input
                    raise ValueError(f"{file.size[0]} by {file.size[1]} pixels is too oblong")
                picture = ImageOps.exif_transpose(file)
                if picture.mode in ("F", "I") or picture.mode.startswith("I;16"):
                    values, transparent = np.asarray(picture), picture.info.get("transparency")
                    grey = _to_eight_bits(values, picture.mode)
                    picture = Image.fromarray(np.where(values == transparent, np.uint8(255), grey))
                elif picture.has_transparency_data:
                    white = Image.new("RGBA", picture.size, "white")
                    picture = Image.alpha_composite(white, picture.convert("RGBA"))
                return picture.convert("RGB")
    except Exception as error:  # of any kind: it is any content
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ValueError(f"{path} cannot be read as a picture ({reason}).") from error


def _to_eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    values = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    if low >= 0 and (high <= 1 if mode == "F" else high <= 65535):
        low, high = 0.0, 1.0 if mode == "F" else 65535.0
    return np.rint((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
