#!/usr/bin/env python3
"""The network of a bench in PyTorch, under the clock of the bench.

The bench conducts: it writes one JSON object per line to stdin and waits for one on stdout, so that its own steps and those of its peers take turns.

    open    network, batch, threads, momentum, setting ("plain" or "tuned"), weights (a checkpoint)  ->  ready
    check   pixels (a file of bytes: images, rows, columns, RGB), images                             ->  outputs of the last layer
    train   steps: forward, cross-entropy, backward, SGD                                             ->  seconds of each
    infer   steps: forward without gradients                                                         ->  seconds of each
    layers  steps, a row of the bench at a time                                                      ->  seconds of each row, pass and step
    gemm    a product of two square matrices                                                         ->  FLOP/s

"plain" is PyTorch as it is installed. "tuned" has channels last, local response normalisation through torch.compile and, where there is one, the fused
optimiser; its allocator and its threads are set by the environment that the bench gives it.
"""
import json
import resource
import struct
import sys
import time

from wire import answer, serve


try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as problem:
    answer(type="missing", message=f"{sys.executable} has no PyTorch: {problem}")
    sys.exit(0)


def tensors_of(path):
    """The tensors of a safetensors file: a length, a table as JSON, the data."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        table = json.loads(file.read(length))
        data = bytearray(file.read())
    found = {}
    for name, entry in table.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        begin, end = entry["data_offsets"]
        found[name] = torch.frombuffer(data, dtype=torch.float32, count=(end - begin) // 4, offset=begin).reshape(entry["shape"]).clone()
    return found


def window(spec, size):
    """Padding before and behind, such that the last, incomplete window counts where the layer says so."""
    kernel, stride, padding = spec["kernelSize"], spec.get("stride", 1), spec.get("padding", 0)
    span = size + 2 * padding - kernel
    steps = -(-span // stride) if spec.get("ceilMode", True) else span // stride
    return padding, max(0, steps * stride + kernel - size - padding)


class AcrossChannels(nn.Module):
    """y = x (k + a * sum of x^2 over `size` channels)^-beta, within groups of channels."""

    def __init__(self, spec, tuned):
        super().__init__()
        self.size, self.k, self.beta, self.groups = spec["size"], spec["k"], spec["beta"], spec.get("groups", 1)
        self.alpha = spec["alpha"] * (1 if spec.get("alphaDividedBySize", True) else spec["size"])
        self.run = torch.compile(self.formula) if tuned else self.installed

    def installed(self, x):
        if self.groups > 1:
            n, c, h, w = x.shape
            x = x.reshape(n * self.groups, c // self.groups, h, w)
            return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k).reshape(n, c, h, w)
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def formula(self, x):
        # Groups as views of five dimensions compile to something three times as slow.
        return torch.cat([self.group(x) for x in x.chunk(self.groups, 1)], 1) if self.groups > 1 else self.group(x)

    def group(self, x):
        channels = x.shape[1]
        squares = F.pad(x * x, (0, 0, 0, 0, self.size // 2, (self.size - 1) // 2))
        total = squares[:, :channels]
        for i in range(1, self.size):
            total = total + squares[:, i : i + channels]
        root = torch.rsqrt(self.k + self.alpha / self.size * total)
        return x * (root * torch.sqrt(root) if self.beta == 0.75 else root ** (2 * self.beta))

    def forward(self, x):
        return self.run(x)


class WithinMaps(nn.Module):
    """The same over a window of `size` x `size` pixels of a map."""

    def __init__(self, spec, tuned):
        super().__init__()
        self.size, self.k, self.beta = spec["size"], spec["k"], spec["beta"]
        self.alpha = spec["alpha"] * (1 if spec.get("alphaDividedBySize", True) else spec["size"] ** 2)
        self.run = torch.compile(self.formula) if tuned else self.formula

    def formula(self, x):
        return x * (self.k + self.alpha * F.avg_pool2d(x * x, self.size, 1, self.size // 2)) ** -self.beta

    def forward(self, x):
        return self.run(x)


class PaperDropout(nn.Module):
    """Without the factor for the survivors in training; `inverted` dropout has it."""

    def __init__(self, spec):
        super().__init__()
        self.p, self.inverted = spec["p"], spec.get("inverted", False)

    def forward(self, x):
        y = F.dropout(x, self.p, self.training)
        return y if self.inverted or self.p == 0 else y * (1 - self.p)


class Peer:
    def __init__(self):
        self.modules = {}

    def open(self, network, batch, threads, momentum, setting, weights):
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        self.network, self.batch, self.tuned = network, batch, setting == "tuned"
        self.format = torch.channels_last if self.tuned else torch.contiguous_format
        stored = tensors_of(weights)
        self.mean = stored["input.mean"]
        crop = network["input"]["cropSize"]
        shape = (3, crop, crop)
        self.first_padding = None
        self.rows, row, below = [], None, None
        for index, spec in enumerate(network["layers"]):
            made, shape = self.layer(spec, shape, stored, index == 0)
            with_norm = below == "localResponseNorm" and spec["type"] == "maxPool2d"
            if row is not None and (with_norm or spec["type"] in ("relu", "tanh", "dropout")):
                row[1].extend(made)
            else:
                row = (spec["name"], made)
                self.rows.append(row)
            below = spec["type"]
        self.rows = [(name, nn.Sequential(*made).to(memory_format=self.format)) for name, made in self.rows]
        self.model = nn.Sequential(*[row for _, row in self.rows])
        groups = []
        for spec in network["layers"]:
            if "weightInit" not in spec or spec.get("frozen", False):
                continue
            module = self.modules[spec["name"]]
            groups.append({"params": [module.weight], "lr": 1e-6, "weight_decay": spec.get("weightDecay", 0)})
            groups.append({"params": [module.bias], "lr": 2e-6, "weight_decay": 0})
        fused = {"fused": True} if self.tuned else {}
        self.optimiser = torch.optim.SGD(groups, lr=1e-6, momentum=momentum, **fused)
        self.x = self.input(torch.rand(batch, 3, crop, crop) * 255 - 128)
        self.labels = torch.randint(0, network["classes"], (batch,))
        kind = "MKL" if torch.backends.mkl.is_available() else "no MKL"
        capability = torch.backends.cpu.get_cpu_capability()
        return dict(type="ready", version=torch.__version__, details=f"{kind}, oneDNN {'on' if torch.backends.mkldnn.is_available() else 'off'}, {capability}, {torch.get_num_threads()} threads")

    def input(self, x):
        """What the first layer sees; its own padding is put around the images once, not in every step."""
        if self.first_padding is not None:
            x = F.pad(x, self.first_padding)
        return x.contiguous(memory_format=self.format)

    def layer(self, spec, shape, stored, first):
        kind, (c, h, w) = spec["type"], shape
        if kind in ("conv2d", "maxPool2d", "avgPool2d"):
            before, behind = window(spec, h)
            stride = spec.get("stride", 1)
            side = (h + before + behind - spec["kernelSize"]) // stride + 1
        if kind == "conv2d":
            made = []
            padding = before if before == behind else 0
            if before != behind:
                sides = (before, behind, before, behind)
                if first:
                    self.first_padding = sides
                else:
                    made.append(nn.ZeroPad2d(sides))
            module = nn.Conv2d(c, spec["outChannels"], spec["kernelSize"], stride, padding, groups=spec.get("groups", 1))
            made.append(self.filled(spec["name"], module, stored))
            return made, (spec["outChannels"], side, side)
        if kind == "linear":
            module = self.filled(spec["name"], nn.Linear(c * h * w, spec["outFeatures"]), stored)
            return [nn.Flatten(), module], (spec["outFeatures"], 1, 1)
        if kind == "maxPool2d":
            return [nn.MaxPool2d(spec["kernelSize"], stride, before, ceil_mode=behind > before)], (c, side, side)
        if kind == "avgPool2d":
            pool = nn.AvgPool2d(spec["kernelSize"], stride, before, ceil_mode=behind > before, count_include_pad=False)
            return [pool], (c, side, side)
        if kind == "relu":
            return [nn.ReLU(inplace=True)], shape
        if kind == "tanh":
            return [nn.Tanh()], shape
        if kind == "dropout":
            return [PaperDropout(spec)], shape
        if kind == "localResponseNorm":
            return [AcrossChannels(spec, self.tuned)], shape
        if kind == "mapResponseNorm":
            return [WithinMaps(spec, self.tuned)], shape
        raise ValueError(f"PyTorch has no layer of the type {kind} ({spec['name']})")

    def filled(self, name, module, stored):
        with torch.no_grad():
            module.weight.copy_(stored[f"{name}.weight"].reshape(module.weight.shape))
            module.bias.copy_(stored[f"{name}.bias"].reshape(module.bias.shape))
        self.modules[name] = module
        return module

    def check(self, pixels, images):
        size, crop = self.network["input"]["imageSize"], self.network["input"]["cropSize"]
        with open(pixels, "rb") as file:
            data = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8).reshape(images, size, size, 3).float()
        begin = (size - crop) // 2
        data = (data[:, begin : begin + crop, begin : begin + crop] - self.mean) * self.network["input"]["scale"]
        self.model.eval()
        with torch.inference_mode():
            outputs = self.model(self.input(data.permute(0, 3, 1, 2)))
        return dict(type="checked", outputs=outputs.reshape(images, -1).tolist())

    def step(self):
        self.optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(self.model(self.x), self.labels).backward()
        self.optimiser.step()

    def train(self, steps):
        self.model.train()
        return self.timed(self.step, steps)

    def infer(self, steps):
        self.model.eval()
        with torch.inference_mode():
            return self.timed(lambda: self.model(self.x), steps)

    def timed(self, run, steps):
        seconds = []
        for _ in range(steps):
            begin = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begin)
        return dict(type="samples", seconds=seconds, peakBytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

    def layers(self, steps):
        """A step in pieces: every row sees its input as a leaf, so that its gradients can be asked for alone, with the memory and the caches of a step.

        Where a row has parameters, its elementwise layers go backward twice, once for each gradient."""
        self.model.train()
        found = {}
        for _ in range(steps):
            for key, seconds in self.pieces().items():
                found.setdefault(key, []).append(seconds)
        rows = [dict(row=row, phase=phase, seconds=seconds) for (row, phase), seconds in found.items()]
        return dict(type="layers", rows=rows)

    def pieces(self):
        clock, found = time.perf_counter, {}
        self.optimiser.zero_grad(set_to_none=True)
        trail, x = [], self.x
        for index, (name, row) in enumerate(self.rows):
            x = x.detach()
            # Nobody wants the gradient by the images.
            x.requires_grad_(index > 0)
            begin = clock()
            y = row(x)
            found[name, "forward"] = clock() - begin
            trail.append((name, row, x, y))
            x = y
        logits = x.detach().requires_grad_()
        begin = clock()
        loss = F.cross_entropy(logits, self.labels)
        (gradient,) = torch.autograd.grad(loss, logits)
        found["loss", "loss"] = clock() - begin
        for name, row, x, y in reversed(trail):
            parameters = list(row.parameters())
            wanted = [x] if x.requires_grad else []
            if wanted and parameters:
                begin = clock()
                (below,) = torch.autograd.grad(y, wanted, gradient, retain_graph=True)
                middle = clock()
                of_parameters = torch.autograd.grad(y, parameters, gradient)
                found[name, "dataGradient"], found[name, "weightGradient"] = middle - begin, clock() - middle
            elif parameters:
                begin = clock()
                of_parameters = torch.autograd.grad(y, parameters, gradient)
                found[name, "weightGradient"] = clock() - begin
                below = None
            else:
                begin = clock()
                (below,) = torch.autograd.grad(y, wanted, gradient)
                found[name, "dataGradient"] = clock() - begin
                of_parameters = []
            for parameter, value in zip(parameters, of_parameters):
                parameter.grad = value
            gradient = below
        begin = clock()
        self.optimiser.step()
        found["update", "update"] = clock() - begin
        return found

    def gemm(self, size=2048):
        a, b = torch.rand(size, size), torch.rand(size, size)
        with torch.inference_mode():
            torch.mm(a, b)
            seconds = self.timed(lambda: torch.mm(a, b), 7)["seconds"]
        return dict(type="gemm", flopsPerSecond=2 * size**3 / sorted(seconds)[len(seconds) // 2])


peer = Peer()
VERBS = {"open": peer.open, "check": peer.check, "train": peer.train, "infer": peer.infer, "layers": peer.layers, "gemm": peer.gemm}
serve(VERBS)
