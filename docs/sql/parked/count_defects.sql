-- parked/count_defects
--
-- Counts records parked by a defect of ours, up to a bound. The worker, for `/readyz`. No lock.
-- parked_defect_idx.
--
-- Parameters: $1 param_1 = 10000

SELECT count(*) AS count_1
FROM (SELECT parked.id AS id
FROM parked
WHERE parked.state = 'open' AND parked.reason = 'handler_raised'
LIMIT $1::INTEGER) AS anon_1;
