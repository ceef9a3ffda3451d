"""Stands in for the project's rename tables until they are there."""

import re

from flax import traverse_util

RESNET = [
    (r"conv1\.", "stem/conv/"),
    (r"bn1\.", "stem/norm/"),
    (r"layer(\d+)\.(\d+)\.downsample\.0\.", r"stage\1_\2/skip/conv/"),
    (r"layer(\d+)\.(\d+)\.downsample\.1\.", r"stage\1_\2/skip/norm/"),
    (r"layer(\d+)\.(\d+)\.(conv|bn)(\d)\.", r"stage\1_\2/part\4/\3/"),
    (r"fc\.", "head/"),
]


def convert(tensors):
    bottleneck = "layer1.0.conv3.weight" in tensors
    parts = ["reduce", "spatial", "expand"] if bottleneck else ["first", "second"]
    flat = {}
    for name, value in tensors.items():
        if name.endswith("num_batches_tracked"):
            continue
        for old, new in RESNET:
            path, n = re.subn("^" + old, new, name)
            if n:
                break
        path = re.sub(r"part(\d)", lambda m: parts[int(m[1]) - 1], path).replace("/bn/", "/norm/")
        stem, leaf = path.rsplit("/", 1)
        collection = "batch_stats" if leaf.startswith("running") else "params"
        norm = "norm" in stem
        leaf = {
            "running_mean": "mean",
            "running_var": "var",
            "weight": "scale" if norm else "kernel",
            "bias": "bias",
        }[leaf]
        if leaf == "kernel":
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        flat[f"{collection}/{stem}/{leaf}"] = value
    return traverse_util.unflatten_dict(flat, sep="/")
