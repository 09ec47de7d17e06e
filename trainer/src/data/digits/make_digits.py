"""Writes digits.png and digits.txt, the embedded data set, from scikit-learn's copy of UCI's optical digits.

    pip install scikit-learn pillow
    python make_digits.py

digits.png is a sheet of 8x8 grey images, 45 to a row, in scikit-learn's order; a pixel is value * 255 / 16, rounded,
with value in 0..16, so the original is recovered exactly. digits.txt holds the 1,797 labels, one digit each.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

COLUMNS = 45
here = Path(__file__).parent

digits = load_digits()
images = digits.images.astype(int)
assert images.shape == (1797, 8, 8) and images.min() == 0 and images.max() == 16

rows = -(-len(images) // COLUMNS)
sheet = np.zeros((rows * 8, COLUMNS * 8), np.uint8)
for index, image in enumerate(images):
    row, column = divmod(index, COLUMNS)
    sheet[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = np.rint(image * 255 / 16)
Image.fromarray(sheet).save(here / "digits.png", optimize=True)

text = "".join(str(label) for label in digits.target)
lines = [text[start : start + 100] for start in range(0, len(text), 100)]
(here / "digits.txt").write_text("\n".join(lines) + "\n")
