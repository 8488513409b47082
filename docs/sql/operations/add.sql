-- operations/add
--
-- Keeps a plan; nothing where its id has one. An operator's command, seldom. Locks the new row.
-- operation_pkey.
--
-- Parameters: $1 id, $2 kind, $3 parameters, $4 resource, $5 items, $6 digest, $7 facts, $8 sample, $9
--   reason, $10 requested_by, $11 detached = False, $12 done = 0, $13 counts = {}, $14 rate_per_second_max,
--   $15 ttl, $16 notes

INSERT INTO operation (id, kind, parameters, resource, items, digest, facts, sample, reason, requested_by,
    state, detached, done, counts, rate_per_second_max, created_at, expires_at, notes) VALUES ($1::UUID,
    $2::VARCHAR, $3::JSONB, $4::VARCHAR, $5::BIGINT, $6::VARCHAR, $7::JSONB, $8::JSONB, $9::VARCHAR,
    $10::VARCHAR, 'planned', $11::BOOLEAN, $12::BIGINT, $13::JSONB, $14::FLOAT, clock_timestamp(),
    (clock_timestamp() + $15::INTERVAL), $16::JSONB) ON CONFLICT (id) DO NOTHING;
