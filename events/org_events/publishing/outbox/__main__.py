"""`python -m org_events.publishing.outbox [TABLE]`: the table and its indexes, for a migration of yours."""

import sys

from org_events.publishing.outbox.outbox import Outbox

if __name__ == "__main__":
    sys.stdout.write(";\n\n".join(Outbox(*sys.argv[1:2]).table_statements) + ";\n")
