"""Makes normality.json: Ledoit-Wolf shrinkage and squared Mahalanobis distances as scikit-learn
computes them, fitted to the normal samples of the scorer_* files and measured on all of them.

Made with Python 3.11, numpy 2.4.6, scikit-learn 1.9.1 and safetensors 0.8.0:
    python make_normality.py
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from sklearn.covariance import LedoitWolf

HERE = Path(__file__).parent


def case(name, columns):
    file = load_file(HERE / f"scorer_{name}.safetensors")
    labels = file["labels"].astype(int)
    z = file["features"].reshape(len(labels), -1)[:, :columns].astype(np.float64)
    fitted = LedoitWolf().fit(z[labels == 0])
    return {
        "file": name,
        "columns": columns,
        "shrinkage": float(fitted.shrinkage_),
        "distances": fitted.mahalanobis(z).tolist(),
    }


if __name__ == "__main__":
    # Fewer samples than numbers twice, then more samples than numbers.
    cases = [case("wide_n40_d128", 640), case("small_n40_d16", 80), case("small_n40_d16", 7)]
    (HERE / "normality.json").write_text(json.dumps({"cases": cases}, indent=1) + "\n")
