"""Fetches Transformers' shared model tests, which its wheel leaves out, from the source distribution of the same version.

python tests/fetch_shared_tests.py
"""

import importlib
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

import pytest
import transformers

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "shared-tests"
PACKAGE = "transformers_shared_tests"
# What test_modeling_common imports from its neighbours, for kinds of models that COMM is not one of.
STUBS = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
}


class FetchError(RuntimeError):
    """The shared tests could not be fetched."""


def fetch_shared_tests() -> Path:
    """
    Folder that holds the shared tests as the package `transformers_shared_tests`; downloaded on the first call.

    Raises:
        FetchError: pip could not download them.
    """
    folder = CACHE / transformers.__version__
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        scratch = Path(scratch)
        requirement = f"transformers=={transformers.__version__}"
        _pip("download", "--no-deps", "--no-binary", "transformers", "--dest", scratch, requirement)
        package = scratch / "complete" / PACKAGE
        _write(package / "test_modeling_common.py", _read_from_archive(next(scratch.glob("*.tar.gz"))))
        for name, text in STUBS.items():
            _write(package / name, text)
        if importlib.util.find_spec("parameterized") is None:
            _pip("install", "--no-deps", "--target", package.parent, "parameterized")
        try:
            package.parent.rename(folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
    return folder


def import_shared_tests():
    """The module `test_modeling_common`. Raises what [`fetch_shared_tests`] raises."""
    sys.path.append(str(fetch_shared_tests()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)  # marks that Transformers' own runs select by
        return importlib.import_module(f"{PACKAGE}.test_modeling_common")


def _pip(*arguments, attempts=2):
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet", "--retries", "1", "--timeout", "30"]
    for _ in range(attempts):
        finished = subprocess.run(command, capture_output=True, text=True)
        if finished.returncode == 0:
            return
    raise FetchError(f"`{' '.join(command)}` failed {attempts} times: {finished.stderr.strip()[-500:]}")


def _read_from_archive(archive):
    with tarfile.open(archive) as tar:
        name = f"{archive.name.removesuffix('.tar.gz')}/tests/test_modeling_common.py"
        return tar.extractfile(name).read().decode("utf-8")


def _write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    (file.parent / "__init__.py").touch()
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    print(fetch_shared_tests())
