"""Logging of `run_docre.py`."""

import logging

import datasets
import transformers

from .training_args import CommTrainingArguments


def set_up_logging(training_args: CommTrainingArguments) -> None:
    """Logs with times; this project's messages from `info` on in the first process, the libraries' as `--log_level` says."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    level = training_args.get_process_log_level()
    says_more = training_args.log_level == "passive" and training_args.process_index == 0
    for name in ("run_docre", "modeling_comm.training", "dataset_scripts"):
        logging.getLogger(name).setLevel(logging.INFO if says_more else level)
    datasets.utils.logging.set_verbosity(logging.WARNING)
    transformers.utils.logging.set_verbosity(level)
    datasets.disable_progress_bars()  # long encodings have one all the same
