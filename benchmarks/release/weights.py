"""The pages' table of all weights: whose they are, their accuracy and licence, as the names' configurations say.

    python -m benchmarks.release.weights

Nothing is downloaded.
"""

from functools import partial

import timm

import timm_resattn
from benchmarks.common.pages import renew
from benchmarks.common.tables import markdown_table
from benchmarks.release.models import accuracy_of, tags_of

COMMAND = "python -m benchmarks.release.weights"


def row_of(full: str) -> tuple[str, ...]:
    """The line of weights: network, tag, donor, top-1, licence."""
    name, _, tag = full.partition(".")
    cfg = timm.get_pretrained_cfg(full)
    donor = (
        f"[`{cfg.hf_hub_id.removeprefix('timm/')}`](https://huggingface.co/{cfg.hf_hub_id})" if cfg.hf_hub_id else "-"
    )
    tag = f"**`{tag}`**" if full == tags_of(name)[0] else f"`{tag}`"
    return f"`{name}`", tag, donor, accuracy_of(full), cfg.license or "none stated"


def block() -> str:
    """All weights, each network's default first."""
    names = [full for name in timm_resattn.resattn.default_cfgs for full in tags_of(name)]
    return markdown_table(("name", "tag", "donor", "top-1", "licence"), map(row_of, names), text_columns=5)


main = partial(renew, COMMAND, __doc__, block)

if __name__ == "__main__":
    main()
