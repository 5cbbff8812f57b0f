"""Draw figures/module.svg and figures/network.svg: ``python docs/draw.py``.

The network's boxes, sizes and channels are read from the network itself.
"""

from pathlib import Path

import timm

from timm_resattn import AttentionModule

FIGURES = Path(__file__).resolve().parent / "figures"
COLORS = {"unit": "#cfe3f5", "mask": "#fde2c4", "module": "#f9c784", "plain": "#eeeeee", "sum": "#ffffff"}


class Drawing:
    """Boxes, arrows and words of an SVG."""

    def __init__(self, width: int, height: int) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="sans-serif" font-size="13" text-anchor="middle">',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="white"/>',
        ]

    def box(self, x: float, y: float, width: float, height: float, text: str, kind: str = "plain") -> None:
        """A box around the point (x, y) with lines of text."""
        self.parts.append(
            f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}" rx="4" '
            f'fill="{COLORS[kind]}" stroke="#444"/>'
        )
        self.words(x, y, text)

    def words(self, x: float, y: float, text: str) -> None:
        """Lines of text around a point."""
        lines = text.split("\n")
        for i, line in enumerate(lines):
            self.parts.append(f'<text x="{x:g}" y="{y + 4.5 + 16 * (i - (len(lines) - 1) / 2):g}">{line}</text>')

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through points, with a tip."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="#444" marker-end="url(#tip)"/>')

    def svg(self) -> str:
        """The file's text."""
        return "\n".join([*self.parts, "</svg>", ""])


def draw_module() -> str:
    """An Attention Module whose mask pools twice."""
    d = Drawing(980, 400)
    d.words(20, 60, "x")
    d.box(100, 60, 90, 44, "pre\np units", "unit")
    d.box(480, 60, 240, 44, "trunk: t residual units", "unit")
    d.box(830, 60, 100, 44, "(1 + M) &#183; T", "sum")
    d.box(920, 140, 90, 44, "post\np units", "unit")
    d.words(920, 205, "y")
    d.arrow((28, 60), (55, 60))
    d.arrow((145, 60), (360, 60))
    d.arrow((600, 60), (780, 60))
    d.words(690, 48, "T")
    d.arrow((880, 60), (920, 60), (920, 118))
    d.arrow((920, 162), (920, 194))
    # the mask: one column a step, one row a size
    d.arrow((180, 60), (180, 178))
    d.box(180, 200, 120, 44, "max pool\nr units", "mask")
    d.arrow((180, 222), (180, 300), (220, 300))
    d.box(280, 300, 120, 44, "max pool\nr units", "mask")
    d.box(420, 300, 90, 44, "unit", "mask")
    d.arrow((340, 300), (375, 300))
    d.box(330, 200, 110, 44, "unit (skip)", "mask")
    d.arrow((240, 200), (275, 200))
    d.box(510, 200, 34, 34, "+", "sum")
    d.arrow((385, 200), (493, 200))
    d.arrow((465, 300), (510, 300), (510, 217))
    d.words(565, 262, "interpolated")
    d.box(600, 200, 90, 44, "units", "mask")
    d.arrow((527, 200), (555, 200))
    d.box(740, 130, 150, 44, "1x1, 1x1, sigmoid", "mask")
    d.arrow((645, 200), (740, 200), (740, 152))
    d.words(700, 218, "interpolated")
    d.arrow((815, 130), (830, 130), (830, 82))
    d.words(845, 112, "M")
    d.words(
        490,
        370,
        "orange: the soft mask, here with two poolings; maps are interpolated to the size of the map that they meet",
    )
    return d.svg()


def draw_network(name: str) -> str:
    """A network's stages, from the network itself."""
    model = timm.create_model(name, device="meta")
    side = timm.get_pretrained_cfg(name).input_size[-1]
    steps = [("stem: 7x7 / 2, max pool / 2", [])]
    for stage in model.stages:
        steps.append(("", ["module" if isinstance(block, AttentionModule) else "unit" for block in stage.blocks]))
    steps.append(("norm, ReLU, mean over the map, linear", []))
    row = 58
    d = Drawing(640, row * (len(steps) + 1) + 10)
    d.words(260, 26, f"image, {model.in_chans} x {side} x {side}")
    for i, (text, blocks) in enumerate(steps):
        y = row * (i + 1) + 16
        d.arrow((260, y - row + (22 if i else 18)), (260, y - 22))
        if text:
            d.box(260, y, 330, 40, text)
        width = 330 / max(len(blocks), 1)
        for k, kind in enumerate(blocks):
            label = "Attention Module" if kind == "module" else "unit"
            d.box(95 + width * (k + 0.5), y, width - 4, 40, label, kind)
        if blocks:
            info = model.feature_info[i]
            size = side // info["reduction"]
            d.words(530, y, f"{info['num_chs']} x {size} x {size}")
    d.words(530, row * len(steps) + 16, f"{model.num_classes} classes")
    return d.svg()


def main() -> None:
    """Write the figures."""
    FIGURES.mkdir(exist_ok=True)
    (FIGURES / "module.svg").write_text(draw_module())
    (FIGURES / "network.svg").write_text(draw_network("resattn56"))


if __name__ == "__main__":
    main()
