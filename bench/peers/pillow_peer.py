#!/usr/bin/env python3
"""Reading of images in Python, under the clock of the bench: Pillow decodes, torchvision resizes and augments, on one core.

A JSON object per line on stdin, one in answer on stdout:

    open   files and packed (paths), size (side of a stored image), crop (side of what a network sees)  ->  ready, stages
    stage  decode, prepare or augment, over all files in memory; folder or jpegs, over files or packed
           as they lie on the disk, to minibatches of bytes; those packed have their size already        ->  seconds
"""
import io
import sys
import time

from wire import answer, serve


try:
    import numpy
    import torch
    import torchvision
    from PIL import Image, __version__ as pillow
    from torchvision import transforms
except ImportError as problem:
    answer(type="missing", message=f"{sys.executable} has no Pillow with torchvision: {problem}")
    sys.exit(0)

torch.set_num_threads(1)
BATCH = 128


class Reader:
    def open(self, files, packed, size, crop):
        self.paths, self.packed = files, packed
        self.files = [open(path, "rb").read() for path in files]
        self.square = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size)])
        self.augmentation = transforms.Compose([transforms.RandomCrop(crop), transforms.RandomHorizontalFlip(), transforms.ToTensor()])
        self.squares = [self.square(self.decoded(file)) for file in self.files]
        self.batch = numpy.zeros((BATCH, size, size, 3), numpy.uint8)
        version = f"{pillow}, torchvision {torchvision.__version__}"
        return dict(type="ready", version=version, stages=["decode", "prepare", "augment", "folder", "jpegs"])

    def decoded(self, file):
        return Image.open(io.BytesIO(file)).convert("RGB")

    def read(self, path, prepare):
        with open(path, "rb") as file:
            self.batch[self.place] = prepare(self.decoded(file.read()))
        self.place = (self.place + 1) % BATCH

    def stage(self, stage):
        work, items = {
            "decode": (self.decoded, self.files),
            "prepare": (lambda file: self.square(self.decoded(file)), self.files),
            "augment": (self.augmentation, self.squares),
            "folder": (lambda path: self.read(path, self.square), self.paths),
            "jpegs": (lambda path: self.read(path, numpy.asarray), self.packed),
        }[stage]
        self.place = 0
        begin = time.perf_counter()
        for item in items:
            work(item)
        return dict(type="stage", seconds=time.perf_counter() - begin)


reader = Reader()
VERBS = {"open": reader.open, "stage": reader.stage}
serve(VERBS)
