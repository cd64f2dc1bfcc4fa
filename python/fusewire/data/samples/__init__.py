"""Real data small enough to travel in the package: English prose and pictures of clothes.

    jargon/jargon.txt                          the Jargon File 4.4.7, public domain
    fashion_mnist/images-idx3-ubyte.gz         2,000 images of 28 x 28, 200 of each class, MIT
    fashion_mnist/labels-idx1-ubyte.gz         their classes, 0 to 9

`fusewire.data.samples.provenance` makes these files anew from Debian packages.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent

JARGON_TEXT = _FOLDER / "jargon" / "jargon.txt"
FASHION_IMAGES = _FOLDER / "fashion_mnist" / "images-idx3-ubyte.gz"
FASHION_LABELS = _FOLDER / "fashion_mnist" / "labels-idx1-ubyte.gz"
