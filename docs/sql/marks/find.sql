-- marks/find
--
-- Reads a mark. An operator's command, seldom. No lock. mark_pkey.
--
-- Parameters: $1 mark_name

SELECT mark.name, mark.position, mark.topics, mark.groups, mark.marked_at, mark.marked_by, mark.reason
FROM mark
WHERE mark.name = $1::VARCHAR;
