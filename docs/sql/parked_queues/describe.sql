-- parked_queues/describe
--
-- Notes what is known of records that were read, or tried, again. An operator's command, seldom, in each
-- step. The rows are locked already. parked_pkey.
--
-- Parameters: $1 given_id, $2 given_reason, $3 given_detail, $4 given_failed, $5 given_org_id, $6
--   given_command_id, $7 given_request_digest, $8 given_actor, $9 given_authenticated_by

UPDATE parked SET org_id=given.org_id, command_id=given.command_id, request_digest=given.request_digest,
    reason=given.reason, detail=given.detail, attempts=(parked.attempts + given.failed), actor=given.actor,
    authenticated_by=given.authenticated_by FROM unnest($1::BIGINT[], $2::TEXT[], $3::TEXT[], $4::INTEGER[],
    $5::UUID[], $6::UUID[], $7::BYTEA[], $8::TEXT[], $9::TEXT[]) AS given(id, reason, detail, failed, org_id,
    command_id, request_digest, actor, authenticated_by) WHERE parked.id = given.id;
