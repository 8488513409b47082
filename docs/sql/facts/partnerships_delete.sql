-- facts/partnerships_delete
--
-- Deletes facts that were taken back. The worker, in each batch of reference data with tombstones. Row locks
-- until the commit. partnership_org_id_idx, because few partners serve an organization; or all of the table
-- where the batch is not much smaller.
--
-- Parameters: $1 given_partner_org_id, $2 given_org_id

DELETE FROM partnership USING unnest($1::UUID[], $2::UUID[]) AS given(partner_org_id, org_id)
    WHERE partnership.partner_org_id = given.partner_org_id AND partnership.org_id = given.org_id;
