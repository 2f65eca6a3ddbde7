"""Make harness/core/data/files/fashion_mnist_mini.npz from the four original files of Fashion-MNIST.

    python tools/make_fashion_mnist_mini.py /usr/share/datasets/fashion-mnist

The folder holds the idx files, compressed (.gz) or not; on Debian the package dataset-fashion-mnist brings
them. Their content is checked against the digest in harness/spec/data/datasets.py. The subset is the first 1,000
training and the first 500 test images of each class, in the order of the files. Prints the digest of the
subset, over the raw bytes of train_images, train_labels, test_images and test_labels in this order, which
belongs into harness/spec/data/datasets.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from harness.core.data.published import MINI, MINI_KEYS, Bytes, content_digest, fashion_mnist

TRAIN_PER_CLASS = 1000
TEST_PER_CLASS = 500


def first_of_each_class(labels: Bytes, count: int) -> np.ndarray:
    """Ascending indices of the first `count` images of every class."""
    return np.sort(np.concatenate([np.flatnonzero(labels == kind)[:count] for kind in np.unique(labels)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the four idx files lie")
    train_images, train_labels, test_images, test_labels = fashion_mnist(parser.parse_args().folder)
    train = first_of_each_class(train_labels, TRAIN_PER_CLASS)
    test = first_of_each_class(test_labels, TEST_PER_CLASS)
    arrays = (train_images[train], train_labels[train], test_images[test], test_labels[test])
    np.savez_compressed(MINI, **dict(zip(MINI_KEYS, arrays, strict=True)))
    print(f"{MINI}: {len(train)} training and {len(test)} test images, {MINI.stat().st_size:,} bytes")
    print(content_digest(array.tobytes() for array in arrays))


if __name__ == "__main__":
    main()
