"""The version of Transformers that this library needs: another one would fail with the name of a class that it lacks."""

import transformers

NEEDED = ("5.17", "6")  # from, and below; `setup.cfg` has the same


def check_transformers(found: str = transformers.__version__) -> None:
    """
    Checks a version of Transformers.

    Raises:
        ImportError: it is too old or too new.
    """
    version, lowest, above = (tuple(map(int, text.split(".")[:2])) for text in (found, *NEEDED))
    if not lowest <= version < above:
        raise ImportError(
            f'modeling_comm needs transformers>={NEEDED[0]},<{NEEDED[1]}, and {found} is installed: pip install "transformers>='
            f'{NEEDED[0]},<{NEEDED[1]}"'
        )


check_transformers()
