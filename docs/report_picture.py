"""Write docs/images/report.png, the README's picture of a report; needs chromium."""

import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from detectorcal import demo
from detectorcal.io import open_frames
from detectorcal.report import write_report

WIDTH, HEIGHT = 1000, 4200
TOPS, PART = (0, 2820), 1230
"""Rows where the two parts begin that are shown side by side, and how high they are."""
SHARE, COLOURS = 0.6, 256

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    result = demo.run(0)
    demo.write(result, folder)
    page, shot = folder / "report.html", folder / "report.png"
    with open_frames(folder / "corrected.h5") as corrected:
        write_report(
            page, result.calibrator, sweep=result.sweep, scan=result.scan, corrected=corrected,
            title="detector.h5",
        )  # fmt: skip
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder}/p",
    ]
    size = [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}"]
    subprocess.run(["chromium", *flags, *size, page.as_uri()], check=True, capture_output=True)
    with Image.open(shot) as image:
        picture = Image.new("RGB", (2 * WIDTH, PART), "white")
        for number, top in enumerate(TOPS):
            picture.paste(image.crop((0, top, WIDTH, top + PART)), (number * WIDTH, 0))
small = picture.resize((round(2 * WIDTH * SHARE), round(PART * SHARE)), Image.Resampling.LANCZOS)
small.quantize(COLOURS, Image.Quantize.MAXCOVERAGE).save(
    Path(__file__).parent / "images" / "report.png", optimize=True
)
