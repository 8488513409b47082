-- operations/find_under_way
--
-- Finds what is under way on a resource. An operator's command, seldom. No lock. operation_resource_key.
--
-- Parameters: $1 resource

SELECT operation.id
FROM operation
WHERE operation.resource = $1::VARCHAR AND (operation.state = 'running' OR operation.state = 'paused');
