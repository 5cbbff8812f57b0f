"""``python -m timm_resattn``, the same as ``timm-resattn``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
