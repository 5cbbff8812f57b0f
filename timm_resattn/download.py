"""Pretrained weights from elsewhere: one clear error for whatever goes wrong, no damaged file in a cache.

timm, huggingface_hub and torch.hub trust what lies in their caches. huggingface_hub checks the length of a
download but not its content, torch.hub neither: a damaged file would fail every later call, or none where
only its numbers changed.
"""

import hashlib
import pickle
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional, Tuple, Union
from urllib.parse import urlparse

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.utils import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from timm.models import PretrainedCfg

from .files import read_file, why_unreadable

__all__ = ["explain_failures"]

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # what timm asks a repository for, in this order


@contextmanager
def explain_failures(variant: str, cfg: PretrainedCfg, cache_dir: Union[str, Path, None] = None) -> Iterator[None]:
    """Wrap the loading of a model's pretrained weights.

    Behind it a downloaded file is compared with the SHA-256 that the hub stated, and after a failure it is
    also read. If it is damaged it is removed, so that the next call downloads it again. (From a ``url`` only
    if this call downloaded it; a file that was there before is named instead.)

    Args:
        variant: Name of the model, for messages.
        cfg: Where the weights come from.
        cache_dir: As for ``timm.create_model``.

    Raises:
        RuntimeError: The weights could not be downloaded or read; one sentence with the model, the place and
            the reason. ValueError and TypeError pass: wrong arguments, weights that do not fit.
    """
    kind, address = _source(cfg)
    on_hub = kind == "hub repository"
    was_cached = _cached_file(cfg, cache_dir) is not None
    failure: Optional[Exception] = None
    try:
        yield
    except Exception as error:  # of the hub, its HTTP client, torch, pickle, safetensors
        failure = error

    cached = _cached_file(cfg, cache_dir)
    damage = cached and _damage(cached, on_hub, read=failure is not None)
    if cached and damage:
        if on_hub or not was_cached:
            cached.resolve().unlink()  # the blob, where the cache holds links
            cached.unlink(missing_ok=True)
            damage += ", and was removed from the cache: try again"
        else:
            damage += ": delete it and try again"
        reason = damage
    elif failure is None:
        return
    elif isinstance(failure, (TypeError, ValueError)) and not isinstance(failure, OSError):
        raise failure  # (an OSError and a ValueError too is "not found" in older releases of huggingface_hub)
    else:
        reason = _reason(failure, cfg)
    what = f"The pretrained weights of {variant} could not be loaded from the {kind} {address}"
    raise RuntimeError(f"{what}: {reason}.") from failure


def _source(cfg: PretrainedCfg) -> Tuple[str, str]:
    """Kind and address of what the weights come from, in timm's order."""
    if cfg.source == "local-dir":
        return "folder", str(cfg.file)
    if cfg.source != "hf-hub":
        if cfg.state_dict:
            return "state_dict", "that was given"
        if cfg.file:
            return "file", str(cfg.file)
    return ("hub repository", cfg.hf_hub_id) if cfg.hf_hub_id else ("URL", str(cfg.url))


def _cached_file(cfg: PretrainedCfg, cache_dir: Union[str, Path, None]) -> Optional[Path]:
    """The cached copy of what comes from the hub or from a URL, if there is one."""
    kind, address = _source(cfg)
    if kind == "hub repository":
        repo, _, revision = address.partition("@")
        for name in (cfg.hf_hub_filename,) if cfg.hf_hub_filename else HUB_FILES:
            cached = try_to_load_from_cache(repo, name, cache_dir=cache_dir, revision=revision or None)
            if isinstance(cached, str):  # neither unknown nor known to be missing
                return Path(cached)
    elif kind == "URL":
        folder = Path(cache_dir or Path(torch.hub.get_dir(), "checkpoints"))
        path = folder / Path(urlparse(address).path).name
        return path if path.is_file() else None
    return None


def _damage(path: Path, on_hub: bool, read: bool) -> Optional[str]:
    """What is wrong with a downloaded file, or None."""
    # where the cache holds links they lead to a file named by its ETag, which is the SHA-256 of a large file
    sha256 = path.resolve().name
    if on_hub and re.fullmatch("[0-9a-f]{64}", sha256):
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != sha256:
            return f"{path} is not what the hub states (its SHA-256 differs)"
    if read:
        try:
            read_file(path)
        except ValueError as error:
            return str(error).rstrip(".")
    return None


def _reason(error: BaseException, cfg: PretrainedCfg) -> str:
    """Why, in a part of a sentence."""
    if isinstance(error, LocalEntryNotFoundError):
        cause = _sentence(error.__cause__ or error)
        return f"nothing could be downloaded ({cause}), and the cache holds no copy"
    if isinstance(error, GatedRepoError):
        return "access to it has to be requested on its page"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private"
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision"
    if isinstance(error, EntryNotFoundError):
        return f"it holds no {cfg.hf_hub_filename or ' and no '.join(HUB_FILES)}"
    if isinstance(error, FileNotFoundError) and not str(error):
        return "there is no such file"
    if isinstance(error.__cause__, pickle.UnpicklingError):
        return f"it {why_unreadable(error)}"
    return _sentence(error)


def _sentence(error: Any) -> str:
    """An exception's text on one line."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
