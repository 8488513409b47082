-- marks/remove
--
-- Deletes a mark. An operator's command, seldom. Locks the row. mark_pkey.
--
-- Parameters: $1 mark_name

DELETE FROM mark WHERE mark.name = $1::VARCHAR RETURNING mark.name, mark.position, mark.topics, mark.groups,
    mark.marked_at, mark.marked_by, mark.reason;
