-- erasing/find_held
--
-- Finds those with open parked records. A step of `orgs erase` or `orgs purge`; a plan likewise. No lock.
-- Reads the whole table, which is small.
--
-- Parameters: $1 ids, $2 keys

SELECT DISTINCT parked.org_id, parked.key
FROM parked
WHERE parked.state = 'open' AND (parked.org_id = any($1::UUID[]) OR parked.key = any($2::BYTEA[]));
