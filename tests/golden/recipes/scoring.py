"""scorer_*.safetensors: logistic regression on the features of the five best heads.

The features are those of the first prompt in the rhi file beside it; the split into train_idx and
test_idx is given. coef, intercept and proba are liblinear's (scikit-learn, C = 1), opt_* the exact
optimum of the same objective by Newton's method; _train uses train_idx only.
"""

import numpy as np
from safetensors.numpy import load_file
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from .common import GOLDEN

NAMES = ["small_n40_d16", "wide_n40_d128"]


def optimum(rows, labels):
    """Minimum of the log-loss + |w|^2 / 2, the intercept a weight of a constant 1."""
    design = np.c_[rows, np.ones(len(rows))]
    sign = 2.0 * labels - 1
    weights = np.zeros(design.shape[1])
    for _ in range(100):
        q = expit(-sign * (design @ weights))
        gradient = weights - design.T @ (sign * q)
        if np.linalg.norm(gradient) < 1e-13:
            break
        hessian = design.T @ (design * (q * (1 - q))[:, None]) + np.eye(len(weights))
        weights = weights - np.linalg.solve(hessian, gradient)
    return weights[:-1], weights[-1:]


def one_file(given, rhi):
    heads = rhi["top"]
    features = np.concatenate([rhi["features"][0][:, layer, h] for layer, h in heads], axis=1)
    labels = rhi["labels"]
    out = {
        "features": features,
        "labels": labels,
        "heads": heads,
        "train_idx": given["train_idx"],
        "test_idx": np.setdiff1d(np.arange(len(labels)), given["train_idx"]),
    }
    # The test half in its given order.
    if set(out["test_idx"]) == set(given["test_idx"]):
        out["test_idx"] = given["test_idx"]
    wide = features.astype(np.float64)
    for part, rows in (("all", np.arange(len(labels))), ("train", given["train_idx"])):
        model = LogisticRegression(solver="liblinear", C=1.0).fit(features[rows], labels[rows])
        out[f"coef_{part}"] = model.coef_[0]
        out[f"intercept_{part}"] = model.intercept_
        out[f"proba_{part}"] = model.predict_proba(features)[:, 1]
        out[f"n_iter_{part}"] = model.n_iter_.astype(np.int64)
        coef, intercept = optimum(wide[rows], labels[rows])
        out[f"opt_coef_{part}"] = coef
        out[f"opt_intercept_{part}"] = intercept
        out[f"opt_proba_{part}"] = expit(wide @ coef + intercept)
    return out


def make():
    files = {}
    for name in NAMES:
        given = load_file(GOLDEN / f"scorer_{name}.safetensors")
        rhi = load_file(GOLDEN / f"rhi_{name}.safetensors")
        files[f"scorer_{name}.safetensors"] = (one_file(given, rhi), None)
    return files
