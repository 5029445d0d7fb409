"""How `run_docre.py --help` shows its flags."""

import argparse


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows one spelling of each flag, defaults other than None, and the description with its lines as they are."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)

    def _format_action_invocation(self, action):
        spellings = action.option_strings
        # Transformers adds a second one with hyphens. It keeps working.
        action.option_strings = [flag for flag in spellings if "-" not in flag.lstrip("-")]
        try:
            return super()._format_action_invocation(action)
        finally:
            action.option_strings = spellings
