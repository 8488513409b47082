-- marks/list
--
-- Lists the latest marks. An operator's command, seldom. No lock. Reads the whole table.
--
-- Parameters: $1 limit

SELECT mark.name, mark.position, mark.topics, mark.groups, mark.marked_at, mark.marked_by, mark.reason
FROM mark ORDER BY mark.marked_at DESC, mark.name
LIMIT $1::INTEGER;
