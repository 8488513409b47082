"""What `docs/sql` says of each statement: what it does, who runs it and when, its locks, the index it uses."""

from collections.abc import Mapping
from typing import Final

SUBJECTS: Final[Mapping[str, str]] = {
    "organizations": "Organizations, deleted ones included.",
    "outcomes": "What became of commands.",
    "parked": "Records set aside for an operator.",
    "parked_queues": "Parked records as operators group, release and discard them (`orgs parked`).",
    "journal": "One row for each command that was decided, in gapless order.",
    "relations": "Who belongs where and who serves whom, as of a decision.",
    "facts": "Reference data: memberships, partnerships, staff.",
    "reference_progress": "How far each partition of the reference topics is applied.",
    "directory": "What one user sees of one organization.",
    "lists": "What one user sees of all organizations.",
    "accepted": "Commands that were answered with 202.",
    "losses": "Offsets of commands that were gone before a worker read them.",
    "operations": "What operators plan and run (`orgs runs`).",
    "console": "Who is signed in to the operators' page, and what they did there.",
    "recorded": "What the journal says of commands that are rehearsed (`orgs replay commands`).",
    "past": "The journal asked about an earlier moment.",
    "scratch": "The temporary tables of a rehearsal.",
    "marks": "Moments that operators name (`orgs marks`).",
    "verification": "What tables say as digests, for the proof that topics say the same (`orgs verify`).",
    "erasing": "What is left of organizations that are erased (`orgs erase`, `orgs purge`).",
    "notes": "What operations and marks say of organizations that are erased.",
    "recovery": "The way out when Kafka has more of the journal than a restored database: `orgs journal advance`.",
    "restoring": "The journal and its organizations from the topics: `orgs rebuild`, `orgs recover`.",
    "staged": "What topics say, on the way to the journal of a rebuild.",
    "leader": "The session by which a relay leads and listens.",
    "server": "What Postgres says of itself (`orgs status`, `orgs doctor`).",
    "database": "Health.",
    "migrate": "Around the migrations of `orgs migrate`; the first three at the start of every process.",
    "roles": "Before the first migration.",
}

_BATCH: Final = "The worker, once in each batch"
_OPERATOR: Final = "An operator's command, seldom"
_ERASURE: Final = "A step of `orgs erase` or `orgs purge`"
_REHEARSAL: Final = "A rehearsal, for each batch"
_VERIFIER: Final = "A verification, for each part"
_DIFFERS: Final = "A verification where digests differ"
_RESTORE: Final = "A rebuild or a recovery"
_TRIED: Final = f"{_REHEARSAL} once something differed"

TEXTS: Final[Mapping[str, str]] = {
    "organizations/find_names": "Reads the names of organizations that a batch restores. The worker, before the locks, "
    "only in batches with such commands. No lock. organization_pkey.",
    "organizations/lock": "Locks the organizations of a batch and reads them. "
    f"{_BATCH}, first, where no command claims a name. Row locks (FOR UPDATE) in order of id until the commit, so that "
    "two workers cannot wait for each other. organization_pkey.",
    "organizations/lock_with_holders": "Locks the organizations of a batch and the holders of the names it claims. "
    f"{_BATCH}, first, where a command claims a name. Row locks (FOR UPDATE) in order of id until the commit. "
    "organization_pkey and organization_name_key_key.",
    "organizations/find_holders": "Reads who holds names. "
    f"{_BATCH} that claims names, after the locks; again as the last statement, for names that a batch took and gave "
    "up. No lock. organization_name_key_key.",
    "organizations/insert": "Inserts the organizations that a batch creates. "
    f"{_BATCH} that creates some. Locks the new rows; waits for whoever inserts the same id or name.",
    "organizations/update": "Updates the organizations that a batch changes. "
    f"{_BATCH} that changes some. The rows are locked already. organization_pkey; an update that changes no indexed "
    "column stays on its page (HOT).",
    "organizations/check_names": "Checks the unique names now rather than at the commit. "
    f"{_BATCH} in which a name changes hands. No further lock.",
    "organizations/find_by_id": f"Reads an organization by its id. {_OPERATOR}. No lock. organization_pkey.",
    "organizations/find_by_name": f"Reads the organization that has a name. {_OPERATOR}. No lock. "
    "organization_name_key_key.",
    "organizations/find_deleted_by_name": f"Reads deleted organizations by name. {_OPERATOR}, and each search on the "
    "operators' page. No lock. organization_deleted_name_idx.",
    "organizations/find_by_ids": f"Reads organizations that differ from the journal. {_OPERATOR}, for what a "
    "verification names. No lock. organization_pkey.",
    "organizations/put_back": f"Writes an organization as the journal has it. {_OPERATOR} (`orgs repair`). Locks the "
    "row until the commit. organization_pkey.",
    "organizations/list_first": f"Reads the first page of all organizations, for `orgs export`. {_OPERATOR}. No lock. "
    "organization_pkey.",
    "organizations/list_following": f"Reads a later page of all organizations. {_OPERATOR}. No lock. "
    "organization_pkey.",
    "outcomes/find_journaled": "Finds which commands of a batch were decided already. "
    f"{_BATCH}, right after the locks: a rival that decided the same commands has committed by then. No lock. "
    "journal_command_id_key.",
    "outcomes/find": "Finds what became of one command: decided, parked, pending or expired. The edge, for "
    "`GET /v1/commands/{id}` and for each change with an Idempotency-Key. No lock. journal_command_id_key, "
    "parked_command_id_idx and accepted_command_pkey; of a command that is pending also lost_range_what_key.",
    "parked/find": "Finds open parked commands: organizations that have some, and commands of the batch that are some. "
    f"{_BATCH}, after the locks. No lock. parked_org_id_idx and parked_command_id_idx.",
    "parked/count_waiting": "Counts the commands that wait in each organization, up to a bound. The worker, in a batch "
    "that touches an organization with parked commands. No lock. parked_org_id_idx.",
    "parked/lock_heads": "Locks the first open command of queues. The worker, in a batch with commands of "
    "organizations that do not exist yet and have parked commands. Row locks (FOR SHARE) until the commit: waits for a "
    "release of the queue, which would make the organization. parked_org_id_idx.",
    "parked/park": "Sets a record aside; one row for each run. The worker, only in batches with such records. Locks "
    "the new row; waits for a rival with the same record. parked_coordinates_key.",
    "parked/count_defects": "Counts records parked by a defect of ours, up to a bound. The worker, for `/readyz`. No "
    "lock. parked_defect_idx.",
    "parked_queues/read_last_id": f"Reads the last id given out, where a plan ends. {_OPERATOR}. No lock. parked_pkey.",
    "parked_queues/count": "Counts records of a selection by state, reason and cause; null asks for all. "
    f"{_OPERATOR}. No lock. Reads the whole table.",
    "parked_queues/groups": f"Groups what is open by its cause. {_OPERATOR}, and the pages of what is parked. No lock. "
    "parked_org_id_idx alone for the queues, parked_loose_idx for the rest, then parked_pkey for the first of each.",
    "parked_queues/list": "Lists the next records of a selection without their contents; null asks for all. "
    f"{_OPERATOR}. No lock. parked_pkey in order of id, parked_org_id_idx, parked_command_id_idx or, for records that "
    "are in no queue, parked_loose_idx.",
    "parked_queues/select": f"As `list`, with what they hold. {_OPERATOR}, and in each step of a discard. No lock. The "
    "same indexes.",
    "parked_queues/select_queues": "Finds the next organizations that have a record of a selection in their queue, and "
    f"whether one of their commands was released as often as may be. {_OPERATOR}. No lock. parked_org_id_idx.",
    "parked_queues/read_queues": "Reads the open commands of organizations, each queue in order. "
    f"{_OPERATOR}, for each step of a release. No lock. parked_org_id_idx.",
    "parked_queues/lock": "Locks records that are about to be released or discarded. "
    f"{_OPERATOR}, in each step, after the organizations. Row locks (FOR UPDATE) in order of id until the commit. "
    "parked_pkey.",
    "parked_queues/read_ends": "Reads where the queues of organizations begin, and how long they are. "
    f"{_OPERATOR}, in each step, after the locks. No lock. parked_org_id_idx.",
    "parked_queues/end": f"Notes that records are released or discarded. {_OPERATOR}, in each step. The rows are "
    "locked already. parked_pkey.",
    "parked_queues/describe": f"Notes what is known of records that were read, or tried, again. {_OPERATOR}, in each "
    "step. The rows are locked already. parked_pkey.",
    "journal/take_positions": "Takes the next positions of the journal and wakes the relay at the commit. "
    f"{_BATCH}, last before the rows (first, where a name changes hands). Locks the one row of journal_head until the "
    "commit: every other worker waits here, and therefore commits in order of position. No index: the table has one "
    "row.",
    "journal/append": f"Appends the rows of a batch. {_BATCH}, after take_positions. Locks the new rows; a command id "
    "that a rival journaled fails at journal_command_id_key.",
    "journal/read_after": "Reads the next rows to publish, in order. The leading relay, again and again: for each "
    "chunk of some thousand rows, and once a second when nothing happens. No lock. journal_pkey.",
    "journal/select_events": f"Reads the next changes of a selection; null asks for all. {_OPERATOR}, a window of the "
    "journal at a time. No lock. journal_pkey, or journal_org_id_version_key where few organizations are meant.",
    "journal/select_event_ids": f"Reads which the next changes of a selection are, without their bodies. {_OPERATOR}'s "
    "plan, a window of the journal at a time. No lock. As select_events.",
    "journal/find_command_id": "Reads whose outcome is at a position. The relay, when it begins to lead. No lock. "
    "journal_pkey.",
    "journal/read_head": "Reads the last position given out. The relay, after each chunk and for `/readyz`; operators. "
    "No lock. One row.",
    "journal/read_gaps": "Reads the positions that operators gave up. The relay, where it meets a hole; `orgs verify`. "
    "No lock. Some rows at most.",
    "journal/read_history": "Reads the changes of one organization. The edge, for `GET /v1/orgs/{id}/history`; "
    "operators. No lock. journal_org_id_version_key.",
    "relations/find_memberships": "Reads what the users of a batch are in its organizations and in their partners. "
    f"{_BATCH} with tokens, after the locks. No lock. membership_pkey and partnership_org_id_idx; a batch of thousands "
    "reads all partnerships where they are not many more.",
    "relations/find_partners": "Reads which partners serve the organizations of a batch, and whether they are active. "
    f"{_BATCH} with tokens. No lock. partnership_org_id_idx and organization_pkey.",
    "relations/find_staff": f"Reads which users of a batch are staff. {_BATCH} with tokens. No lock. staff_pkey, "
    "or the whole table while it is small.",
    "relations/is_staff": "Whether a user is staff. The edge, for `GET /v1/commands/{id}` of somebody else's command. "
    "No lock. staff_pkey.",
    "relations/find_clients": "Reads whom organizations serve as partners. The worker, in a batch that deletes some. "
    "No lock. partnership_pkey and organization_pkey.",
    "facts/upsert": "Writes facts; a row that is there as it is stays untouched. The worker, in each batch of "
    "reference data. Row locks until the commit. {table}_pkey.",
    "facts/delete": "Deletes facts that were taken back. The worker, in each batch of reference data with tombstones. "
    "Row locks until the commit. {table}_pkey, or the whole table while it is small.",
    "facts/partnerships_delete": "Deletes facts that were taken back. The worker, in each batch of reference data with "
    "tombstones. Row locks until the commit. partnership_org_id_idx, because few partners serve an organization; or "
    "all of the table where the batch is not much smaller.",
    "facts/first_keys": "Reads the first page of all keys, in order. The worker, after it was away for longer than "
    "tombstones are kept. No lock. {table}_pkey.",
    "facts/following_keys": "Reads the page of keys after a key. The worker, as for the first page. No lock. "
    "{table}_pkey.",
    "reference_progress/lock": "Locks how far partitions are applied, and reads it. The worker, first in each batch of "
    "reference data. Row locks (FOR UPDATE) in order of topic and partition until the commit: whoever comes with older "
    "records waits, then sees that they are old. reference_progress_pkey, or the whole table, "
    "a row for each partition.",
    "reference_progress/begin": "Makes the rows of partitions that nobody has read. The worker, when it is given "
    "partitions. Locks the new rows. reference_progress_pkey.",
    "reference_progress/write": "Notes how far partitions are applied. The worker, last in each batch of reference "
    "data. The rows are locked already. reference_progress_pkey, or the whole table, a row for each partition.",
    "reference_progress/confirm": "Notes when the tables held all that the partitions held. The worker, each minute. "
    "The rows are locked already. reference_progress_pkey, or the whole table, a row for each partition.",
    "reference_progress/read": "Reads how far every partition is applied. The worker, while it waits for the first "
    "load. No lock. Reads the whole table, a row for each partition.",
    "reference_progress/read_ages": "Reads how long ago each partition was confirmed. The worker, when it starts and "
    "when it is given partitions. No lock. Reads the whole table, a row for each partition.",
    "directory/find": "Reads an organization with the rows that say what the user is in it. The edge, for each request "
    "about one organization; the same work whether it is missing, deleted or invisible. No lock. organization_pkey, "
    "membership_pkey, partnership_org_id_idx and staff_pkey.",
    "lists/list_related": "Reads a page of what a user has by membership and partnership. The edge, for each "
    "`GET /v1/orgs`. No lock. membership_pkey, partnership_pkey and organization_pkey, one look-up for each "
    "organization of the user; staff_pkey.",
    "lists/list_active": "Reads a page of all active organizations. The edge, for `GET /v1/orgs` of staff. No lock. "
    "organization_name_key_key or organization_created_at_idx in page order; a search also organization_domain_idx. "
    "organization_pkey and membership_pkey for what is on the page.",
    "accepted/remember": "Remembers a command that is answered with 202, and forgets up to 100 that are a fortnight "
    "old. The edge, for each such answer. Locks the row, and those it deletes. accepted_command_pkey and "
    "accepted_command_accepted_at_idx.",
    "losses/note": "Notes a range of lost offsets, once. The worker, when it finds one. Locks the new row. "
    "lost_range_what_key.",
    "losses/list": f"Lists the latest losses. {_OPERATOR}. No lock. lost_range_pkey.",
    "operations/add": f"Keeps a plan; nothing where its id has one. {_OPERATOR}. Locks the new row. operation_pkey.",
    "operations/find": f"Reads an operation as it stands. {_OPERATOR}. No lock. operation_pkey.",
    "operations/list": f"Lists the latest operations. {_OPERATOR}. No lock. operation_created_at_idx.",
    "operations/find_under_way": f"Finds what is under way on a resource. {_OPERATOR}. No lock. "
    "operation_resource_key.",
    "operations/find_detached": "Finds the oldest operation that was left to the role `operate`. Its processes, once a "
    "second. No lock. operation_created_at_idx.",
    "operations/approve": f"Notes who approved a plan. {_OPERATOR}. Locks the row. operation_pkey.",
    "operations/take": "Takes the lease on an operation, to begin or to continue it. Whoever runs it, once. Locks the "
    "row; fails where another one on the same resource is under way. operation_pkey and operation_resource_key.",
    "operations/advance": "Notes how far a run is, and renews its lease. Whoever runs it, in the transaction of each "
    "step. Locks the row until the commit. operation_pkey.",
    "operations/renew": "Renews the lease, and reads what others ask of the run. Whoever runs it, twice a second. "
    "Locks the row. operation_pkey.",
    "operations/end": "Ends or pauses a run. Whoever runs it, once. Locks the row. operation_pkey.",
    "operations/release": "Leaves a run to any other process. A process of the role `operate` that ends. Locks the "
    "row. operation_pkey.",
    "operations/reject": "Ends a plan that can't be begun. The role `operate`. Locks the row. operation_pkey.",
    "operations/ask": f"Asks the process that runs an operation to pause or cancel it. {_OPERATOR}. Locks the row. "
    "operation_pkey.",
    "operations/cancel": f"Cancels an operation that nobody runs. {_OPERATOR}. Locks the row. operation_pkey.",
    "operations/pause": f"Pauses an operation whose process is gone. {_OPERATOR}. Locks the row. operation_pkey.",
    "operations/set_rate": f"Bounds the rate of an operation. {_OPERATOR}. Locks the row. operation_pkey.",
    "operations/detach": f"Leaves an operation to the role `operate`. {_OPERATOR}. Locks the row. operation_pkey.",
    "recorded/find_commands": f"Finds the outcomes of commands. {_REHEARSAL}, and a plan of `orgs replay commands`. No "
    "lock. journal_command_id_key.",
    "recorded/find_last_changes": "Finds what organizations were before a position each: their last change. "
    f"{_REHEARSAL}, for those of which the commands' own rows don't say it. No lock. journal_org_id_version_key, "
    "backwards from now.",
    "recorded/find_given_up": "Finds the changes by which names were given up. A rehearsal, in windows of 20,000 "
    "positions, once a name was not taken as it was asked for. No lock. Reads the window by journal_pkey.",
    "recorded/find_partners": f"Finds who serves organizations. {_REHEARSAL} with tokens. No lock. "
    "partnership_org_id_idx.",
    "recorded/find_clients": f"Finds whom organizations serve. {_REHEARSAL} with a delete. No lock. partnership_pkey.",
    "recorded/find_parked_records": f"Finds what is or was parked at offsets. {_REHEARSAL}, for records without an "
    "outcome. No lock. parked_coordinates_key.",
    "recorded/find_parked_commands": f"Finds what is or was parked of commands. {_REHEARSAL}, for records without an "
    "outcome. No lock. parked_command_id_idx.",
    "recorded/find_waiting": f"Finds the parked commands of organizations. {_REHEARSAL}. No lock. parked_org_id_idx.",
    "recorded/count_decided": "Counts the outcomes of records at offsets that retention has taken. A rehearsal, in "
    "windows of 200,000 positions, where it asks for what may be gone. No lock. Reads the window by journal_pkey.",
    "past/find_moment": f"Reads when a position was recorded. {_OPERATOR}: some 30 times for `--at` with a time. No "
    "lock. journal_pkey.",
    "past/select_last_changes": f"Reads the last change of each organization between two positions. {_OPERATOR}, for "
    "`orgs diff`, in windows of 200,000 positions. No lock. The window by journal_pkey, and journal_org_id_version_key "
    "for each change in it.",
    "past/select_latest_of": f"Reads the latest outcomes of an organization. {_OPERATOR}, for `orgs trace`. No lock. "
    "Reads the last 200,000 positions by journal_pkey.",
    "scratch/make": "Makes the tables. A rehearsal, first. Locks nothing that exists.",
    "scratch/set_read_only": "Makes every later transaction of the session read-only: only temporary tables can be "
    "written. A rehearsal, once the tables are made.",
    "scratch/begun": "Rehearsals: begins the transaction, before a COPY that goes past SQLAlchemy.",
    "scratch/find_diverged": f"Finds organizations that went another way. {_TRIED}. Temporary tables only.",
    "scratch/note_diverged": f"Keeps organizations that went another way. {_TRIED}. Temporary tables only.",
    "scratch/find_waiting": f"Finds commands that the rehearsal parked. {_TRIED}. Temporary tables only.",
    "scratch/note_waiting": f"Keeps commands that the rehearsal parked. {_TRIED}. Temporary tables only.",
    "scratch/note_given_up": "Keeps who gave up names. With recorded/find_given_up. Temporary tables only.",
    "scratch/find_given_up": "Finds the first who gave up a name at a position or later. A rehearsal, for batches in "
    "which a name was not taken as it was asked for. Temporary tables only.",
    "console/add_ticket": "Keeps the digest of a session or of a one-time link. A sign-in to the operators' page, or "
    "`orgs console`. Locks the new row. console_ticket_pkey.",
    "console/drop_expired": "Forgets sessions and links whose time is over. With console/add_ticket. Locks these rows. "
    "console_ticket_expires_at_idx.",
    "console/find_session": "Finds whose session it is, and whether they are staff. Each request of the operators' "
    "page. No lock. console_ticket_pkey, staff_pkey.",
    "console/use_link": "Uses up a one-time link. A sign-in by one. Locks the row: of two at once, one finds it. "
    "console_ticket_pkey.",
    "console/end_session": "Ends a session. A sign-out. Locks the row. console_ticket_pkey.",
    "console/note": "Keeps what somebody does on the operators' page. Before each change. Locks the new row.",
    "console/list_acts": "Reads what was done to an operation on the operators' page. The page of a run. No lock. "
    "console_act_operation_id_idx.",
    "marks/add": f"Keeps a mark where its name is free. {_OPERATOR}. Locks the new row; waits for a rival with the "
    "same name. mark_pkey.",
    "marks/find": f"Reads a mark. {_OPERATOR}. No lock. mark_pkey.",
    "marks/list": f"Lists the latest marks. {_OPERATOR}. No lock. Reads the whole table.",
    "marks/remove": f"Deletes a mark. {_OPERATOR}. Locks the row. mark_pkey.",
    "journal/count_emptied": "Counts the changes of a selection whose organizations were erased. An operator's plan of "
    "`orgs replay events`, in windows of 200,000 positions. No lock. Reads the window by journal_pkey.",
    "journal/select_states": "Reads what organizations were as of a position: of each the last change up to it. An "
    "operator's plan and run of `orgs apply`, some hundred at a time. No lock. journal_org_id_version_key.",
    "journal/select_since": "Reads all changes of organizations from a version of each on, up to a position. An "
    "operator's plan and run of `orgs undo`, some hundred at a time. No lock. journal_org_id_version_key.",
    "organizations/find_versions": "Reads at which version organizations are now, deleted ones included. An operator's "
    "plan of `orgs apply` or `orgs undo`, some hundred at a time. No lock. organization_pkey.",
    "database/wait_for_reader": "Lets a snapshot wait for whoever reads what it writes. `orgs export`, once. No lock.",
    "erasing/list": "Lists organizations that can be erased, a page at a time. A plan and run of `orgs erase` or "
    "`orgs purge`. No lock. organization_pkey, the whole table where none are asked for.",
    "erasing/lock": f"Locks the organizations of a step. {_ERASURE}, first. Row locks (FOR UPDATE) in order of id "
    "until the commit. organization_pkey.",
    "erasing/find_held": f"Finds those with open parked records. {_ERASURE}; a plan likewise. No lock. Reads the whole "
    "table, which is small.",
    "erasing/find_last_positions": f"Reads the last row of each in the journal. {_ERASURE}. No lock. "
    "journal_org_id_version_key and journal_org_id_unchanged_idx.",
    "erasing/count": "Counts the rows of organizations. An operator's plan of `orgs erase` or `orgs purge`. No lock. "
    "journal_org_id_version_key and journal_org_id_unchanged_idx; reads the other two tables whole.",
    "erasing/find_values": f"Reads what they were called and where they were, ever. {_ERASURE}. No lock. "
    "journal_org_id_version_key.",
    "erasing/empty_organizations": f"Empties them. {_ERASURE}. The rows are locked already. organization_pkey.",
    "erasing/empty_changes": f"Empties their changes in the journal. {_ERASURE}. Locks these rows, which nobody else "
    "writes. journal_org_id_version_key.",
    "erasing/empty_others": f"Empties their other outcomes. {_ERASURE}. Locks these rows, which nobody else writes. "
    "journal_org_id_unchanged_idx.",
    "erasing/empty_parked": f"Empties their parked records, all of which are decided. {_ERASURE}. Locks these rows. "
    "Reads the whole table.",
    "erasing/forget_accepted": f"Deletes their commands that were answered with 202. {_ERASURE}. Locks these rows. "
    "Reads the whole table.",
    "erasing/list_erased": "Lists erased organizations. `orgs erase --status`. No lock. Reads the whole table, and "
    "journal_org_id_version_key.",
    "erasing/count_left": "Counts rows from before an erasure that still say something. `orgs erase --status`, a "
    "thousand organizations at a time. No lock. journal_org_id_version_key and journal_org_id_unchanged_idx; reads the "
    "other two tables whole.",
    "notes/list_operations": f"Reads the texts of operations that are new, or ended since. {_ERASURE}; "
    "`orgs erase --status`. No lock. Reads the whole table.",
    "notes/list_marks": f"Reads the reasons of marks. {_ERASURE}; `orgs erase --status`. No lock. Reads the whole "
    "table.",
    "notes/blank_operation": f"Blanks out what an ended operation says. {_ERASURE}, for each that says something. "
    "Locks the row. operation_pkey.",
    "notes/blank_shown": f"Blanks out what an operation under way shows. {_ERASURE}, for each that says something. "
    "Locks the row. operation_pkey.",
    "notes/blank_mark": f"Blanks out what a mark says. {_ERASURE}, for each that says something. Locks the row. "
    "mark_pkey.",
    "recovery/lock_head": f"Locks the head of the journal and reads it. {_OPERATOR}. Every worker waits until the "
    "commit.",
    "recovery/count_fresh": f"Counts the rows journaled since a backup was restored. {_OPERATOR}. Reads the whole "
    "table.",
    "recovery/last_restored": f"Reads the last position that a backup had. {_OPERATOR}. Reads the whole table.",
    "recovery/lift": f"Moves fresh rows out of the way, to negative positions. {_OPERATOR}. Locks these rows. "
    "journal_pkey.",
    "recovery/put_down": f"Puts fresh rows behind what was published. {_OPERATOR}. Locks these rows. journal_pkey.",
    "recovery/note_gap": f"Notes which positions are given up. {_OPERATOR}. Locks the new row.",
    "recovery/set_head": f"Sets the head of the journal. {_OPERATOR}. The row is locked already.",
    "restoring/lock_head": f"Locks the journal's head, and reads it. {_RESTORE}: workers wait from here on. One row.",
    "restoring/take_head": f"Takes the journal's head away, so that nobody writes until it is back. {_RESTORE}, first.",
    "restoring/set_head": f"Gives the journal its head again. {_RESTORE}, last. One row.",
    "restoring/is_empty": "Whether nothing was ever decided or parked. The plan of `orgs rebuild`. No lock.",
    "restoring/find_last_moment": "When the last row of the journal was recorded. The plan of `orgs recover`. No lock. "
    "journal_pkey.",
    "restoring/find_command_ids": "Whose outcomes stand at positions, to compare a backup with the topics. The plan of "
    "`orgs recover`. No lock. journal_pkey.",
    "staged/make": f"Makes the tables that topics are read into. {_RESTORE}, first.",
    "staged/drop": f"Drops them. {_RESTORE}, last.",
    "staged/stage_parked": f"Keeps which commands were said to be parked. {_RESTORE}, for each step of results.",
    "staged/stage_organizations": "Keeps organizations as their last change has them; an earlier version never "
    f"takes the place of a later one. {_RESTORE}, for each step of state, and for each 5,000 that changed.",
    "staged/make_step": f"Makes the table for what a step reads of events or results. {_RESTORE}, for each step.",
    "staged/analyze": f"Counts the commands that are kept. {_RESTORE}, before events.",
    "staged/find_newer": "Finds organizations of which no such version is known. "
    f"{_RESTORE}, for each step of state. organization_pkey.",
    "staged/find_parked": f"Finds commands that are parked and have no final outcome. {_RESTORE}, once. "
    "journal_command_id_key and parked_command_id_idx.",
    "staged/judge": "Finds commands that have no outcome and are not parked: where workers go on, and whose outcome is "
    f"gone. {_RESTORE}, for each 20,000 commands. journal_command_id_key and parked_command_id_idx.",
    "staged/read_changed": "Reads the last changes of organizations that changed. "
    f"{_RESTORE}, for each 5,000 organizations. journal_org_id_version_key.",
    "restoring/find_unknown": "Which positions have no row. "
    f"{_RESTORE}, for each step of results and state. journal_pkey.",
    "restoring/count": f"Counts the rows of positions. {_RESTORE}, for each 50,000 positions. journal_pkey.",
    "restoring/write": "Writes rows of the journal, with what is kept of their commands, and notes whose they are. "
    f"{_RESTORE}, for each step of events and results. Locks the new rows.",
    "restoring/fill": "Gives commands whose outcome is gone a position about which nothing is known. "
    f"{_RESTORE}, for each 50,000 positions. journal_pkey.",
    "restoring/note_gaps": f"Notes the positions that stay empty. {_RESTORE}, after fill. journal_pkey.",
    "restoring/let_go_of_names": "Lets organizations that changed give up their names, so that they may exchange them. "
    f"{_RESTORE}, for each 5,000 organizations. organization_pkey.",
    "restoring/write_organizations": f"Writes organizations as they are kept. {_RESTORE}, for each 5,000. "
    "organization_pkey.",
    "staged/find_erased": f"Finds organizations that were erased, whose rows are emptied again. {_RESTORE}, once. "
    "Reads which organizations changed.",
    "restoring/end_parked": f"Ends parked commands that were decided since the backup. {_RESTORE}, once. "
    "parked_command_id_idx and journal_command_id_key.",
    "restoring/clear_reference": "Clears reference data and how far they are applied. "
    f"{_RESTORE}, last. Locks the tables.",
    "leader/ping": "Asks whether the session is alive. The relay, when nothing was journaled for a poll interval. No "
    "lock.",
    "leader/acquire": "Tries to become the leader. Each relay that follows, once a second. An advisory lock of the "
    "session; from then on Postgres ends the session when it is silent for too long.",
    "leader/holds": "Whether this session is still the leader. The leading relay, before each transaction. No lock. "
    "Reads pg_locks.",
    "leader/listen": "Listens for the workers' NOTIFY. The relay, when it connects. No lock.",
    "server/find_leader": f"Finds the session that leads. {_OPERATOR}. No lock. Reads pg_locks and pg_stat_activity.",
    "server/show_settings": f"Reads settings of the server. {_OPERATOR}. No lock. Reads pg_settings.",
    "server/show_state": f"Reads clock and version of the server. {_OPERATOR}. No lock.",
    "server/count_synchronous": f"Counts synchronous standbys. {_OPERATOR}. No lock. Reads pg_stat_replication.",
    "server/find_rights": f"Finds which roles may do what to which tables. {_OPERATOR}. No lock. Reads the catalogue.",
    "server/find_assumable": f"Finds the roles that our login may assume. {_OPERATOR}. No lock. Reads the catalogue.",
    "database/ping": "Asks whether Postgres answers. Workers and edges, for `/readyz`. No lock.",
    "migrate/assume": "Takes the role of the process where it exists. Every process, when it looks at the version. No "
    "lock.",
    "migrate/tables": "Whether the tables of versions are there. Every process, when it starts. No lock.",
    "migrate/schema": "Reads the version of the schema. Every process, when it starts. No lock. One row.",
    "migrate/exact": "Reads the version as the first releases kept it. Every process on such a schema. No lock. One "
    "row.",
    "migrate/make_tables": "Makes the tables of versions where they are missing. `orgs migrate`.",
    "migrate/note_oldest": "Notes the oldest program that runs on the schema. `orgs migrate`, for each migration.",
    "migrate/clear_exact": "Takes the version back that the first releases look at. `orgs migrate`.",
    "migrate/note_exact": "Notes the version that the first releases look at. `orgs migrate`.",
    "migrate/set_owner": "Makes orgs_owner the owner of what follows. `orgs migrate`.",
    "migrate/set_lock_timeout": "Bounds the wait for a table: everybody else waits behind it. `orgs migrate`.",
    "migrate/show_version": "Reads the version of the server. `orgs migrate`.",
    "migrate/show_encoding": "Reads the encoding of the database. `orgs migrate`.",
    "migrate/try_lock": "Tries to be the only migration. `orgs migrate`, five times a second until it is. An advisory "
    "lock of the session.",
    "roles/prepare": "Makes the group roles and their rights in the schema where they are missing. `orgs migrate`.",
    "verification/window": f"Digests a part of the journal. {_VERIFIER} of 10,000 rows. No lock. journal_pkey.",
    "verification/chain": f"Digests how the changes of a part of the journal follow each other, by bucket. {_DIFFERS}, "
    "for each part. No lock. journal_pkey.",
    "verification/page": f"Digests the next organizations and compares each with its last change. {_VERIFIER} of "
    "20,000 organizations, in one snapshot. No lock. organization_pkey and journal_org_id_version_key.",
    "verification/reference": "Digests the reference tables. A verification, once, in its snapshot. No lock. Reads the "
    "whole tables.",
    "verification/reference_rows": f"Reads the facts of buckets. {_DIFFERS}. No lock. Reads the whole table.",
    "verification/rows": f"Reads a part of the journal. {_DIFFERS}. No lock. journal_pkey.",
    "verification/emptied": "Reads which rows were emptied with erased organizations. A verification, in its snapshot, "
    "10,000 at a time. No lock. Reads the whole table of organizations; journal_org_id_version_key.",
    "verification/emptied_at": f"Finds which of some rows were emptied. {_DIFFERS}. No lock. journal_pkey.",
    "verification/rows_at": f"Reads rows by position. {_DIFFERS}, and for records that were sent twice. No lock. "
    "journal_pkey.",
    "verification/states": f"Reads what the journal leaves of organizations. {_DIFFERS}. No lock. Reads the whole "
    "journal.",
    "verification/links": f"Finds changes that do not follow the one before. {_DIFFERS}. No lock. Reads the whole "
    "journal.",
    "verification/lost_organizations": f"Finds organizations that the table lacks. {_DIFFERS}. No lock. Reads the "
    "whole journal.",
    "verification/holes": f"Finds positions without a row. {_DIFFERS}, in one part of the journal. No lock. "
    "journal_pkey.",
    "verification/double_commands": "Finds commands with two outcomes. A verification, only where no unique index "
    "proves that there is none. No lock. Sorts the whole journal.",
    "verification/unique_indexes": "Reads which unique indexes of the journal are in force. A verification, once. No "
    "lock. The catalog.",
}
