"""Imports of the package: what they need, and what they offer."""

import configparser
import subprocess
import sys

import pytest
from helpers import ROOT

OPTIONAL = ("accelerate", "datasets", "evaluate", "spacy", "matplotlib", "sklearn", "scipy")


def run(code, missing):
    """Runs code in a fresh process in which the packages `missing` are not there."""
    start = f"""
import importlib.machinery
find = importlib.machinery.PathFinder.find_spec
def find_others(name, *arguments):
    return None if name.partition(".")[0] in {missing!r} else find(name, *arguments)
importlib.machinery.PathFinder.find_spec = staticmethod(find_others)
"""
    return subprocess.run([sys.executable, "-c", start + code], cwd=ROOT, capture_output=True, text=True)


def test_import_needs_torch_and_transformers_only():
    found = run("import modeling_comm; print(modeling_comm.CommConfig().model_type)", missing=OPTIONAL)
    assert found.stdout.strip() == "comm", found.stderr


def test_what_training_lacks_is_named():
    found = run("from modeling_comm import CommTrainer", missing=("accelerate",))
    assert "CommTrainer needs 'accelerate': pip install \"comm-docre[training]\"" in found.stderr


def test_trainer_is_offered():
    import modeling_comm
    from modeling_comm.training.trainer import CommTrainer

    assert modeling_comm.CommTrainer is CommTrainer
    with pytest.raises(AttributeError, match="no attribute 'CommTrainr'"):
        modeling_comm.CommTrainr  # noqa: B018


def test_files_beside_the_code_are_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    beside = {}
    for package in ("modeling_comm", "dataset_scripts"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                owner = next(folder for folder in path.parents if (folder / "__init__.py").is_file())
                name = ".".join(owner.relative_to(ROOT).parts)
                beside.setdefault(name, set()).add(path.relative_to(owner).as_posix())
    assert {package: set(names.split()) for package, names in setup["options.package_data"].items()} == beside


PACKAGES = [
    folder.parent
    for root in ("modeling_comm", "dataset_scripts", "experiments")
    for folder in (ROOT / root).rglob("__init__.py")
]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda folder: folder.name)
def test_a_folder_holds_several_modules_and_none_is_longer_than_500_lines(package):
    modules = [file for file in package.glob("*.py") if file.name != "__init__.py"]
    assert len(modules) > 1
    lengths = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in modules}
    assert {name: length for name, length in lengths.items() if length > 500} == {}
