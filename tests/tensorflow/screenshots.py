"""Looks at every page of TensorBoard in Chromium and keeps a picture of each.

usage: screenshots.py RUN CHROMIUM FOLDER

RUN is a run as for event_files.py, CHROMIUM the browser's program, FOLDER where the pictures go, one PNG a page. Ends
with status 1 and a line for each page that lacks what it should show, says that it has no data, or is blank.
"""

import io
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy
from PIL import Image

from chromium import Chromium
from server import Server

SIZE = (1600, 1200)
# Left of this and above it are TensorBoard's own menus.
CONTENT = (360, 140)
# Pages by address, with what must stand in them: of the hyperparameters' values the data and the number of epochs,
# because TensorBoard sorts the columns and shows the first five.
PAGES = {
    "?tagFilter=epoch#timeseries": ["/loss", "/top1", "train", "validation"],
    "#scalars": ["best/top1", "epoch/loss", "flow_update_ratio"],
    "#images": ["confusion", "images/augmented", "images/gradient_flow", "step"],
    "#graphs": ["Main Graph", "stage1", "avgpool", "fc"],
    "#distributions": ["activations/fc", "gradients/fc.weight"],
    "#histograms": ["activations/fc", "gradients/fc.weight"],
    "#text": ["gradient_flow", "a typical step is", "|Δw|/|w|", "settings", "learning_rate"],
    "#pr_curves": ["precision_recall/all classes", "precision_recall/class 0", "validation is at"],
    "#hparams": ["Trial ID", "digits", "3.0000", "schedule.learning_rate", "best validation top-1"],
}
# What TensorBoard says where it found nothing.
EMPTY = re.compile(r"No (\S+ ){0,4}(data|runs|dashboards|cards|hparams)\b.*", re.IGNORECASE)
# Seconds that a page may take, on a machine that does other things as well.
PATIENCE = 60
# The least shares of the content's pixels that are no background, and that are neither grey nor black nor white.
DRAWN = 0.004
COLOURED = 0.004
# These pages have hardly any colour.
PALE = {"graphs", "text", "hparams"}


def settled(browser, wanted):
    """The page's words and picture, once it has all that is wanted and no longer changes, or patience is at an end."""
    until = time.monotonic() + PATIENCE
    before = None
    while True:
        time.sleep(1)
        text, png = browser.text(), browser.screenshot()
        there = all(words in text for words in wanted)
        if (there and png == before) or time.monotonic() > until:
            return text, png
        before = png


def complaints(page, wanted, text, png):
    """What is wrong with a page."""
    missing = [words for words in wanted if words not in text]
    if missing:
        yield f"{', '.join(missing)} not found"
    if found := EMPTY.search(text):
        yield f"it says: {found.group()}"
    pixels = numpy.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    content = pixels[CONTENT[1] :, CONTENT[0] :].reshape(-1, 3)
    colours, counts = numpy.unique(content, axis=0, return_counts=True)
    background = colours[counts.argmax()]
    drawn = (abs(content - background).max(axis=1) > 40).mean()
    coloured = (content.max(axis=1) - content.min(axis=1) > 40).mean()
    print(f"{page}: {drawn:.2%} of the content's pixels drawn, {coloured:.2%} in colour")
    if drawn < DRAWN:
        yield f"blank: {drawn:.2%} drawn"
    if coloured < COLOURED and page not in PALE:
        yield f"no curves or pictures: {coloured:.2%} in colour"


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    run, program, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    wrong = []
    server = Server(run)
    try:
        # The browser's helpers may still write while the folder is removed.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            browser = Chromium(program, profile, SIZE)
            try:
                for address, wanted in PAGES.items():
                    page = address.partition("#")[2]
                    browser.open(f"{server.url}/{address}")
                    text, png = settled(browser, wanted)
                    (folder / f"{page}.png").write_bytes(png)
                    wrong += [f"{page}: {what}" for what in complaints(page, wanted, text, png)]
            finally:
                browser.stop()
    finally:
        server.stop()
    print(f"screenshots: {folder}")
    if wrong:
        sys.exit("\n".join(f"wrong: {what}" for what in wrong))


if __name__ == "__main__":
    main()
