"""rhi_*.safetensors: saliency metrics of random features by numpy and scikit-learn.

Features and labels are given. Names with _f64 come from the features in float64, the others from
float32; km_* is the state of k-means: the order of the rows (anomalies first), the rows that are the
first centres, the labels and the inertia.
"""

import warnings

import numpy as np
from safetensors.numpy import load_file
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.covariance import ledoit_wolf
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.pairwise import euclidean_distances

from .common import GOLDEN

FILES = ["rhi_small_n40_d16", "rhi_wide_n40_d128"]
METRICS = ["lda", "kl", "mmd", "nmi"]
TOP = 5
LAMBDA = 0.5


def scatter(rows):
    return np.cov(rows, rowvar=False) * (len(rows) - 1)


def lda(a, n):
    delta = a.mean(0) - n.mean(0)
    within = scatter(a) + scatter(n) + 1e-6 * np.eye(a.shape[1])
    score = delta @ np.linalg.pinv(within) @ delta
    return 0.0 if score < 1e-9 else score


def kl(a, n):
    size = a.shape[1]

    def gaussian(rows):
        return rows.mean(0), ledoit_wolf(rows)[0] + 1e-10 * np.eye(size)

    def one(p, q):
        inverse = np.linalg.inv(q[1])
        delta = q[0] - p[0]
        logs = np.linalg.slogdet(q[1])[1] - np.linalg.slogdet(p[1])[1]
        return 0.5 * (np.trace(inverse @ p[1]) + delta @ inverse @ delta - size + logs)

    p, q = gaussian(a), gaussian(n)
    return np.clip(0.5 * (one(p, q) + one(q, p)), 0, 1e6)


def mmd(a, n):
    squared = euclidean_distances(np.vstack([a, n]), squared=True)
    positive = squared[squared > 0]
    gamma = 1 / (2 * np.median(positive)) if len(positive) else 1.0
    kernel, m = np.exp(-gamma * squared), len(a)
    return max(kernel[:m, :m].mean() + kernel[m:, m:].mean() - 2 * kernel[:m, m:].mean(), 0)


def cluster(a, n, seed, n_init="auto"):
    rows = np.vstack([a, n])
    truth = np.r_[np.ones(len(a), int), np.zeros(len(n), int)]
    model = KMeans(n_clusters=2, random_state=seed, n_init=n_init).fit(rows)
    return normalized_mutual_info_score(truth, model.labels_), model


def min_max(values):
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)


def rank(scores):
    """Saliency, and over the prompts: mean, deviation, robust score and the best heads."""
    prompts, layers, heads = scores["lda"].shape
    saliency = np.stack(
        [np.mean([min_max(scores[m][p]) for m in METRICS], axis=0) for p in range(prompts)]
    )
    mean, std = saliency.mean(0), saliency.std(0)
    rss = mean - LAMBDA * std
    best = np.argsort(-rss.ravel(), kind="stable")[:TOP]
    top = np.stack(np.unravel_index(best, (layers, heads)), -1)
    return {"saliency": saliency, "mean": mean, "std": std, "rss": rss, "top": top}


def one_file(given):
    features, labels = given["features"], given["labels"]
    shape = prompts, layers, heads = features.shape[0], *features.shape[2:4]
    samples = len(labels)
    out = {"features": features, "labels": labels}
    state = {
        "km_order": np.argsort(-labels, kind="stable"),
        "km_init": np.zeros((*shape, 2), np.int64),
        "km_labels": np.zeros((*shape, samples), np.int64),
        "km_inertia": np.zeros(shape),
        "nmi_best50": np.zeros(shape),
        "nmi_seeds": np.zeros((*shape, 10)),
    }
    for dtype, suffix in ((np.float64, "_f64"), (np.float32, "")):
        scores = {m: np.zeros(shape) for m in METRICS}
        for at in np.ndindex(*shape):
            rows = features[at[0], :, at[1], at[2]].astype(dtype)
            a, n = rows[labels == 1], rows[labels == 0]
            scores["lda"][at] = lda(a, n)
            scores["kl"][at] = kl(a, n)
            scores["mmd"][at] = mmd(a, n)
            scores["nmi"][at], model = cluster(a, n, 42)
            if dtype == np.float32:
                ordered = np.vstack([a, n])
                centred = ordered - ordered.mean(0)
                state["km_init"][at] = kmeans_plusplus(centred, 2, random_state=42)[1]
                state["km_labels"][at] = model.labels_
                state["km_inertia"][at] = model.inertia_
                state["nmi_best50"][at] = cluster(a, n, 0, 50)[0]
                state["nmi_seeds"][at] = [cluster(a, n, seed)[0] for seed in range(10)]
        for name, value in {**scores, **rank(scores)}.items():
            out[name + suffix] = value
    return {**out, **state}


def make():
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    files = {}
    for name in FILES:
        given = load_file(GOLDEN / f"{name}.safetensors")
        files[f"{name}.safetensors"] = (one_file(given), None)
    return files
