"""The commands of `comm-docre`."""
