-- facts/staff_upsert
--
-- Writes facts; a row that is there as it is stays untouched. The worker, in each batch of reference data.
-- Row locks until the commit. staff_pkey.
--
-- Parameters: $1 given_user_id

INSERT INTO staff (user_id) SELECT given.user_id
FROM unnest($1::TEXT[]) AS given(user_id) ON CONFLICT (user_id) DO NOTHING;
