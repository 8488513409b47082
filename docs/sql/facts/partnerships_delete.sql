-- facts/partnerships_delete
--
-- Deletes facts that were taken back. The worker, in each batch of reference data with tombstones. Row locks
-- until the commit. The primary key.
--
-- Parameters: $1 given_partner_org_id, $2 given_org_id

DELETE FROM partnership USING unnest($1::UUID[], $2::UUID[]) AS given(partner_org_id, org_id)
    WHERE partnership.partner_org_id = given.partner_org_id AND partnership.org_id = given.org_id;
