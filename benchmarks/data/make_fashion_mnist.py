"""Makes the embedded subset: the first 200 training and 100 test images of each class of Fashion-MNIST, in file order, as gzipped IDX.

    apt-get install dataset-fashion-mnist
    python3 make_fashion_mnist.py /usr/share/datasets/fashion-mnist .
"""
import gzip
import pathlib
import struct
import sys


def read(path):
    data = (gzip.open if path.suffix == ".gz" else open)(path, "rb").read()
    dims = data[3]
    shape = struct.unpack(f">{dims}I", data[4 : 4 + 4 * dims])
    return shape, data[4 + 4 * dims :]


def find(folder, stem):
    return next(p for p in sorted(pathlib.Path(folder).rglob(stem + "*")) if p.is_file())


def main(source, target):
    for name, per_class in (("train", 200), ("t10k", 100)):
        (_, rows, columns), images = read(find(source, f"{name}-images"))
        (n,), labels = read(find(source, f"{name}-labels"))
        taken, keep = [0] * 10, []
        for i in range(n):
            if taken[labels[i]] < per_class:
                taken[labels[i]] += 1
                keep.append(i)
        size = rows * columns
        pixels = b"".join(images[i * size : (i + 1) * size] for i in keep)
        out = pathlib.Path(target)
        for kind, header, body in (
            ("images-idx3", struct.pack(">4B3I", 0, 0, 8, 3, len(keep), rows, columns), pixels),
            ("labels-idx1", struct.pack(">4BI", 0, 0, 8, 1, len(keep)), bytes(labels[i] for i in keep)),
        ):
            (out / f"fashion-mnist-{name}-{kind}.gz").write_bytes(gzip.compress(header + body, 9, mtime=0))


main(*sys.argv[1:])
