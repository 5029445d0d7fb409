"""`python -m modeling_comm.cli` is the command `comm-docre`."""

import sys

from comm_docre import main

if __name__ == "__main__":
    sys.exit(main())
