import sys
from pathlib import Path

# `helpers` is imported by name from every test module, whatever pytest's import mode is.
sys.path.insert(0, str(Path(__file__).parent))
