-- Every statement that the release of schema 0004 sends, by role. Made from its code; not to be edited.

-- worker: statements._FIND_HOLDERS
SELECT organization.name_key, organization.id
FROM organization
WHERE organization.name_key = any($1::TEXT[]);

-- worker: statements._FIND_JOURNALED
SELECT journal.command_id, journal.position, journal.org_id, journal.version, journal.outcome, journal.code, journal.request_digest, journal.command_partition, journal.command_offset, journal.event_type, journal.after, journal.problem, journal.traceparent, journal.recorded_at
FROM journal
WHERE journal.command_id = any($1::UUID[]);

-- worker: statements._FIND_NAMES
SELECT organization.id, organization.name
FROM organization
WHERE organization.id = any($1::UUID[]);

-- worker: statements._FIND_PARKED
SELECT asked.org_id, $1::BYTEA AS anon_1
FROM unnest($2::UUID[]) AS asked(org_id)
WHERE EXISTS (SELECT *
FROM parked
WHERE parked.org_id = asked.org_id AND parked.state = 'open' AND parked.command_id IS NOT NULL) UNION ALL SELECT parked.command_id, parked.request_digest
FROM parked
WHERE parked.command_id = any($3::UUID[]) AND parked.state = 'open' AND parked.command_id IS NOT NULL;

-- worker: statements._INSERT_ORGANIZATIONS
INSERT INTO organization (id, name, name_key, domain, primary_address, created_at, updated_at, deactivated_at, deleted_at, version) SELECT given.id, given.name, given.name_key, given.domain, CAST(given.primary_address AS JSONB) AS primary_address, given.created_at, given.updated_at, given.deactivated_at, given.deleted_at, given.version
FROM unnest($1::UUID[], $2::TEXT[], $3::TEXT[], $4::TEXT[], $5::TEXT[], $6::TIMESTAMP WITH TIME ZONE[], $7::TIMESTAMP WITH TIME ZONE[], $8::TIMESTAMP WITH TIME ZONE[], $9::TIMESTAMP WITH TIME ZONE[], $10::BIGINT[]) AS given(id, name, name_key, domain, primary_address, created_at, updated_at, deactivated_at, deleted_at, version);

-- worker: statements._LOCK_ORGANIZATIONS
SELECT organization.id, organization.name, organization.name_key, organization.domain, organization.primary_address, organization.created_at, organization.updated_at, organization.deactivated_at, organization.deleted_at, organization.version
FROM organization
WHERE organization.id = any($1::UUID[]) ORDER BY organization.id FOR UPDATE;

-- worker: statements._LOCK_ORGANIZATIONS_AND_HOLDERS
SELECT organization.id, organization.name, organization.name_key, organization.domain, organization.primary_address, organization.created_at, organization.updated_at, organization.deactivated_at, organization.deleted_at, organization.version
FROM organization
WHERE organization.id = any($1::UUID[]) OR organization.name_key = any($2::TEXT[]) ORDER BY organization.id FOR UPDATE;

-- worker: statements._PARK
INSERT INTO parked (topic, partition, "offset", broker_time, key, value, headers, org_id, command_id, request_digest, reason, detail, attempts, state, recorded_at) VALUES ($1::VARCHAR, $2::INTEGER, $3::BIGINT, $4::TIMESTAMP WITH TIME ZONE, $5::BYTEA, $6::BYTEA, $7::VARCHAR, $8::UUID, $9::UUID, $10::BYTEA, $11::VARCHAR, $12::VARCHAR, $13::INTEGER, $14::VARCHAR, $15::TIMESTAMP WITH TIME ZONE) ON CONFLICT ON CONSTRAINT parked_coordinates_key DO NOTHING RETURNING parked.id;

-- worker: statements._TAKE_POSITIONS
UPDATE journal_head SET position=(journal_head.position + $1::BIGINT) RETURNING journal_head.position - $1::BIGINT AS anon_1, pg_notify($2::VARCHAR, $3::VARCHAR) AS pg_notify_1;

-- worker: statements._UPDATE_ORGANIZATIONS
UPDATE organization SET name=given.name, name_key=given.name_key, domain=given.domain, primary_address=CAST(given.primary_address AS JSONB), updated_at=$1::TIMESTAMP WITH TIME ZONE, deactivated_at=given.deactivated_at, deleted_at=given.deleted_at, version=given.version FROM unnest($2::UUID[], $3::TEXT[], $4::TEXT[], $5::TEXT[], $6::TEXT[], $7::TIMESTAMP WITH TIME ZONE[], $8::TIMESTAMP WITH TIME ZONE[], $9::BIGINT[]) AS given(id, name, name_key, domain, primary_address, deactivated_at, deleted_at, version) WHERE organization.id = given.id;

-- worker: relations._FIND_CLIENTS
SELECT partnership.partner_org_id, partnership.org_id, organization.id IS NOT NULL AND organization.deleted_at IS NULL AS alive
FROM partnership LEFT OUTER JOIN organization ON organization.id = partnership.org_id
WHERE partnership.partner_org_id = any($1::UUID[]);

-- worker: relations._FIND_MEMBERSHIPS
SELECT membership.user_id, membership.org_id, membership.role, membership.joined_at, membership.active
FROM membership JOIN unnest($1::TEXT[], $2::UUID[]) AS asked(user_id, org_id) ON membership.user_id = asked.user_id AND membership.org_id = asked.org_id UNION SELECT membership.user_id, membership.org_id, membership.role, membership.joined_at, membership.active
FROM membership JOIN (SELECT DISTINCT asked.user_id AS user_id, partnership.partner_org_id AS org_id
FROM unnest($1::TEXT[], $2::UUID[]) AS asked(user_id, org_id) JOIN partnership ON partnership.org_id = asked.org_id) AS of_partners ON membership.user_id = of_partners.user_id AND membership.org_id = of_partners.org_id;

-- worker: relations._FIND_PARTNERS
SELECT partnership.org_id, partnership.partner_org_id, partnership.role, organization.id IS NOT NULL AND organization.deleted_at IS NULL AND organization.deactivated_at IS NULL AS partner_active
FROM partnership LEFT OUTER JOIN organization ON organization.id = partnership.partner_org_id
WHERE partnership.org_id = any($1::UUID[]);

-- worker: relations._FIND_STAFF
SELECT staff.user_id
FROM staff
WHERE staff.user_id = any($1::TEXT[]);

-- worker: reference._BEGIN
INSERT INTO reference_progress (topic, partition, topic_id, next_offset) SELECT given.topic, given.partition, given.topic_id, $1::INTEGER AS anon_1
FROM unnest($2::TEXT[], $3::INTEGER[], $4::UUID[]) AS given(topic, partition, topic_id) ORDER BY given.topic, given.partition, given.topic_id ON CONFLICT DO NOTHING;

-- worker: reference._LOCK
SELECT reference_progress.topic, reference_progress.partition, reference_progress.topic_id, reference_progress.next_offset
FROM reference_progress JOIN unnest($1::TEXT[], $2::INTEGER[]) AS given(topic, partition) ON reference_progress.topic = given.topic AND reference_progress.partition = given.partition ORDER BY reference_progress.topic, reference_progress.partition FOR UPDATE OF reference_progress;

-- worker: reference._WRITE
UPDATE reference_progress SET topic_id=given.topic_id, next_offset=given.next_offset FROM unnest($1::TEXT[], $2::INTEGER[], $3::UUID[], $4::BIGINT[]) AS given(topic, partition, topic_id, next_offset) WHERE reference_progress.topic = given.topic AND reference_progress.partition = given.partition;

-- relay: journal._COMMAND_ID_AT
SELECT journal.command_id
FROM journal
WHERE journal.position = $1::BIGINT;

-- relay: journal._GAPS
SELECT journal_gap.first_position, journal_gap.last_position
FROM journal_gap;

-- relay: journal._HEAD
SELECT journal_head.position
FROM journal_head;

-- relay: journal._READ_AFTER
SELECT journal.position, journal.command_id, journal.org_id, journal.version, journal.event_type, journal.outcome, journal.code, journal.actor, journal.changed, journal.before, journal.after, journal.problem, journal.traceparent, journal.recorded_at
FROM journal
WHERE journal.position > $1::BIGINT ORDER BY journal.position
 LIMIT $2::INTEGER;

-- edge: directory._ACCEPT
WITH forgotten AS
(DELETE FROM accepted_command WHERE ctid = any(ARRAY((SELECT ctid
FROM accepted_command
WHERE accepted_command.accepted_at < $5::TIMESTAMP WITH TIME ZONE AND accepted_command.command_id != $1::UUID ORDER BY accepted_command.accepted_at
 LIMIT $6::INTEGER))))
 INSERT INTO accepted_command (command_id, actor, org_id, accepted_at) VALUES ($1::UUID, $2::VARCHAR, $3::UUID, $4::TIMESTAMP WITH TIME ZONE) ON CONFLICT (command_id) DO NOTHING;

-- edge: directory._ANSWER
SELECT known.command_id, known.actor, known.org_id, known.outcome, known.code, known.version, known.position, known.after, known.problem, known.recorded_at
FROM (SELECT 0 AS rank, journal.command_id AS command_id, journal.actor AS actor, journal.org_id AS org_id, journal.outcome AS outcome, journal.code AS code, journal.version AS version, journal.position AS position, journal.after AS after, journal.problem AS problem, journal.recorded_at AS recorded_at
FROM journal
WHERE journal.command_id = $1::UUID UNION ALL SELECT 1 AS rank, parked.command_id AS command_id, accepted_command.actor AS actor, parked.org_id AS org_id, 'parked', NULL AS anon_1, NULL AS anon__1, NULL AS anon__2, NULL AS anon__3, NULL AS anon__4, parked.recorded_at AS recorded_at
FROM parked LEFT OUTER JOIN accepted_command ON accepted_command.command_id = parked.command_id
WHERE parked.command_id = $1::UUID AND parked.state = 'open' UNION ALL SELECT 2 AS rank, accepted_command.command_id AS command_id, accepted_command.actor AS actor, accepted_command.org_id AS org_id, 'pending', NULL AS anon_1, NULL AS anon__1, NULL AS anon__2, NULL AS anon__3, NULL AS anon__4, accepted_command.accepted_at AS accepted_at
FROM accepted_command
WHERE accepted_command.command_id = $1::UUID) AS known ORDER BY known.rank, known.recorded_at
 LIMIT $2::INTEGER;

-- edge: directory._FIND
SELECT caller.staff, organization.id, organization.name, organization.name_key, organization.domain, organization.primary_address, organization.created_at, organization.updated_at, organization.deactivated_at, organization.deleted_at, organization.version, own.org_id, own.role, own.joined_at, own.active, through.partner_org_id, through.partner_role, through.partner_active, through.member_org_id, through.member_role, through.member_joined_at, through.member_active
FROM (SELECT EXISTS (SELECT *
FROM staff
WHERE staff.user_id = $1::VARCHAR) AS staff) AS caller LEFT OUTER JOIN organization ON organization.id = $2::UUID LEFT OUTER JOIN membership AS own ON own.user_id = $1::VARCHAR AND own.org_id = $2::UUID LEFT OUTER JOIN (SELECT partnership.partner_org_id AS partner_org_id, partnership.role AS partner_role, partner.deleted_at IS NULL AND partner.deactivated_at IS NULL AS partner_active, members.org_id AS member_org_id, members.role AS member_role, members.joined_at AS member_joined_at, members.active AS member_active
FROM partnership JOIN membership AS members ON members.org_id = partnership.partner_org_id JOIN organization AS partner ON partner.id = partnership.partner_org_id
WHERE members.user_id = $1::VARCHAR AND partnership.org_id = $2::UUID) AS through ON true;

-- edge: callers._DIGEST
SELECT journal.request_digest
FROM journal
WHERE journal.command_id = $1::UUID UNION ALL SELECT parked.request_digest
FROM parked
WHERE parked.command_id = $1::UUID AND parked.state = $2::VARCHAR
 LIMIT $3::INTEGER;

-- edge: callers._IS_STAFF
SELECT EXISTS (SELECT *
FROM staff
WHERE staff.user_id = $1::VARCHAR) AS anon_1;

-- edge: lists.list_related, name
WITH mine AS
(SELECT membership.org_id AS org_id, membership.role AS role, membership.joined_at AS joined_at, membership.active AS active
FROM membership
WHERE membership.user_id = $1::VARCHAR AND membership.active),
reached AS
(SELECT partnership.org_id AS org_id, partnership.partner_org_id AS partner_org_id, partnership.role AS partner_role, true AS partner_active, partner.org_id AS member_org_id, partner.role AS member_role, partner.joined_at AS member_joined_at, partner.active AS member_active
FROM (SELECT mine.org_id AS org_id, mine.role AS role, mine.joined_at AS joined_at, mine.active AS active
FROM mine
WHERE EXISTS (SELECT *
FROM partnership
WHERE partnership.partner_org_id = mine.org_id)
 LIMIT ALL OFFSET $5::INTEGER) AS partner JOIN LATERAL (SELECT organization.id AS id, organization.name AS name, organization.name_key AS name_key, organization.domain AS domain, NULL AS primary_address, organization.created_at AS created_at, organization.updated_at AS updated_at, organization.deactivated_at AS deactivated_at, organization.deleted_at AS deleted_at, organization.version AS version
FROM organization
WHERE organization.id = partner.org_id AND organization.deleted_at IS NULL AND organization.deactivated_at IS NULL
 LIMIT ALL OFFSET $6::INTEGER) AS anon_4 ON true JOIN partnership ON partnership.partner_org_id = partner.org_id)
 SELECT caller.staff, caller.default_id, page.id, page.name, page.name_key, page.domain, page.primary_address, page.created_at, page.updated_at, page.deactivated_at, page.deleted_at, page.version, mine.org_id, mine.role, mine.joined_at, mine.active, reached.partner_org_id, reached.partner_role, reached.partner_active, reached.member_org_id, reached.member_role, reached.member_joined_at, reached.member_active
FROM (SELECT EXISTS (SELECT *
FROM staff
WHERE staff.user_id = $1::VARCHAR) AS staff, (SELECT joined.org_id
FROM (SELECT mine.org_id AS org_id, mine.role AS role, mine.joined_at AS joined_at, mine.active AS active
FROM mine ORDER BY mine.joined_at, mine.org_id
 LIMIT ALL OFFSET $2::INTEGER) AS joined JOIN LATERAL (SELECT organization.id AS id, organization.name AS name, organization.name_key AS name_key, organization.domain AS domain, NULL AS primary_address, organization.created_at AS created_at, organization.updated_at AS updated_at, organization.deactivated_at AS deactivated_at, organization.deleted_at AS deleted_at, organization.version AS version
FROM organization
WHERE organization.id = joined.org_id AND organization.deleted_at IS NULL
 LIMIT ALL OFFSET $3::INTEGER) AS anon_1 ON true ORDER BY joined.joined_at, joined.org_id
 LIMIT $4::INTEGER) AS default_id) AS caller LEFT OUTER JOIN (SELECT fetched.id AS id, fetched.name AS name, fetched.name_key AS name_key, fetched.domain AS domain, fetched.primary_address AS primary_address, fetched.created_at AS created_at, fetched.updated_at AS updated_at, fetched.deactivated_at AS deactivated_at, fetched.deleted_at AS deleted_at, fetched.version AS version
FROM (SELECT anon_2.id AS id, anon_2.name AS name, anon_2.name_key AS name_key, anon_2.domain AS domain, anon_2.primary_address AS primary_address, anon_2.created_at AS created_at, anon_2.updated_at AS updated_at, anon_2.deactivated_at AS deactivated_at, anon_2.deleted_at AS deleted_at, anon_2.version AS version
FROM (SELECT mine.org_id AS org_id
FROM mine
WHERE NOT (SELECT EXISTS (SELECT *
FROM staff
WHERE staff.user_id = $1::VARCHAR) AS anon_3) UNION SELECT reached.org_id AS org_id
FROM reached
WHERE NOT (SELECT EXISTS (SELECT *
FROM staff
WHERE staff.user_id = $1::VARCHAR) AS anon_3)) AS candidate JOIN LATERAL (SELECT organization.id AS id, organization.name AS name, organization.name_key AS name_key, organization.domain AS domain, NULL AS primary_address, organization.created_at AS created_at, organization.updated_at AS updated_at, organization.deactivated_at AS deactivated_at, organization.deleted_at AS deleted_at, organization.version AS version
FROM organization
WHERE organization.id = candidate.org_id AND organization.deleted_at IS NULL AND organization.name_key IS NOT NULL AND (organization.name_key) > ($7::VARCHAR) AND (organization.name_key >= $8::VARCHAR AND organization.name_key < $9::VARCHAR OR organization.domain >= $8::VARCHAR AND organization.domain < $9::VARCHAR)
 LIMIT ALL OFFSET $10::INTEGER) AS anon_2 ON true) AS fetched ORDER BY fetched.name_key
 LIMIT $11::INTEGER) AS page ON true LEFT OUTER JOIN mine ON mine.org_id = page.id LEFT OUTER JOIN reached ON reached.org_id = page.id ORDER BY page.name_key;

-- edge: lists.list_related, -created_at
WITH mine AS
(SELECT membership.org_id AS org_id, membership.role AS role, membership.joined_at AS joined_at, membership.active AS active
FROM membership
WHERE membership.user_id = $1::VARCHAR AND membership.active),
reached AS
(SELECT partnership.org_id AS org_id, partnership.partner_org_id AS partner_org_id, partnership.role AS partner_role, true AS partner_active, partner.org_id AS member_org_id, partner.role AS member_role, partner.joined_at AS member_joined_at, partner.active AS member_active
FROM (SELECT mine.org_id AS org_id, mine.role AS role, mine.joined_at AS joined_at, mine.active AS active
FROM mine
WHERE EXISTS (SELECT *
FROM partnership
WHERE partnership.partner_org_id = mine.org_id)
 LIMIT ALL OFFSET $5::INTEGER) AS partner JOIN LATERAL (SELECT organization.id AS id, organization.name AS name, organization.name_key AS name_key, organization.domain AS domain, NULL AS primary_address, organization.created_at AS created_at, organization.updated_at AS updated_at, organization.deactivated_at AS deactivated_at, organization.deleted_at AS deleted_at, organization.version AS version
FROM organization
WHERE organization.id = partner.org_id AND organization.deleted_at IS NULL AND organization.deactivated_at IS NULL
 LIMIT ALL OFFSET $6::INTEGER) AS anon_3 ON true JOIN partnership ON partnership.partner_org_id = partner.org_id)
 SELECT caller.staff, caller.default_id, page.id, page.name, page.name_key, page.domain, page.primary_address, page.created_at, page.updated_at, page.deactivated_at, page.deleted_at, page.version, mine.org_id, mine.role, mine.joined_at, mine.active, reached.partner_org_id, reached.partner_role, reached.partner_active, reached.member_org_id, reached.member_role, reached.member_joined_at, reached.member_active
FROM (SELECT EXISTS (SELECT *
FROM staff
WHERE staff.user_id = $1::VARCHAR) AS staff, (SELECT joined.org_id
FROM (SELECT mine.org_id AS org_id, mine.role AS role, mine.joined_at AS joined_at, mine.active AS active
FROM mine ORDER BY mine.joined_at, mine.org_id
 LIMIT ALL OFFSET $2::INTEGER) AS joined JOIN LATERAL (SELECT organization.id AS id, organization.name AS name, organization.name_key AS name_key, organization.domain AS domain, NULL AS primary_address, organization.created_at AS created_at, organization.updated_at AS updated_at, organization.deactivated_at AS deactivated_at, organization.deleted_at AS deleted_at, organization.version AS version
FROM organization
WHERE organization.id = joined.org_id AND organization.deleted_at IS NULL
 LIMIT ALL OFFSET $3::INTEGER) AS anon_1 ON true ORDER BY joined.joined_at, joined.org_id
 LIMIT $4::INTEGER) AS default_id) AS caller LEFT OUTER JOIN (SELECT fetched.id AS id, fetched.name AS name, fetched.name_key AS name_key, fetched.domain AS domain, fetched.primary_address AS primary_address, fetched.created_at AS created_at, fetched.updated_at AS updated_at, fetched.deactivated_at AS deactivated_at, fetched.deleted_at AS deleted_at, fetched.version AS version
FROM (SELECT anon_2.id AS id, anon_2.name AS name, anon_2.name_key AS name_key, anon_2.domain AS domain, anon_2.primary_address AS primary_address, anon_2.created_at AS created_at, anon_2.updated_at AS updated_at, anon_2.deactivated_at AS deactivated_at, anon_2.deleted_at AS deleted_at, anon_2.version AS version
FROM (SELECT reached.org_id AS org_id
FROM reached
WHERE NOT (SELECT EXISTS (SELECT *
FROM staff
WHERE staff.user_id = $1::VARCHAR) AS anon_4) EXCEPT SELECT mine.org_id AS org_id
FROM mine) AS candidate JOIN LATERAL (SELECT organization.id AS id, organization.name AS name, organization.name_key AS name_key, organization.domain AS domain, NULL AS primary_address, organization.created_at AS created_at, organization.updated_at AS updated_at, organization.deactivated_at AS deactivated_at, organization.deleted_at AS deleted_at, organization.version AS version
FROM organization
WHERE organization.id = candidate.org_id AND organization.deleted_at IS NULL
 LIMIT ALL OFFSET $7::INTEGER) AS anon_2 ON true) AS fetched ORDER BY fetched.created_at DESC, fetched.id DESC
 LIMIT $8::INTEGER) AS page ON true LEFT OUTER JOIN mine ON mine.org_id = page.id LEFT OUTER JOIN reached ON reached.org_id = page.id ORDER BY page.created_at DESC, page.id DESC;

-- edge: lists.list_active, name
WITH met AS
(SELECT anon_1.id AS id, anon_1.name_key AS name_key, anon_1.created_at AS created_at
FROM (SELECT walked.id AS id, walked.name_key AS name_key, walked.created_at AS created_at, walked.domain AS domain
FROM (SELECT organization.id AS id, organization.name_key AS name_key, organization.created_at AS created_at, organization.domain AS domain
FROM organization
WHERE organization.deleted_at IS NULL AND organization.deactivated_at IS NULL AND organization.name_key IS NOT NULL AND (organization.name_key) > ($1::VARCHAR) ORDER BY organization.name_key
 LIMIT 1000) AS walked
WHERE walked.name_key >= $2::VARCHAR AND walked.name_key < $3::VARCHAR OR walked.domain >= $2::VARCHAR AND walked.domain < $3::VARCHAR) AS anon_1 ORDER BY anon_1.name_key
 LIMIT $4::INTEGER)
 SELECT organization.id, organization.name, organization.name_key, organization.domain, NULL AS primary_address, organization.created_at, organization.updated_at, organization.deactivated_at, organization.deleted_at, organization.version, own.org_id, own.role, own.joined_at, own.active
FROM organization JOIN (SELECT chosen.id AS id, chosen.name_key AS name_key, chosen.created_at AS created_at
FROM (SELECT met.id AS id, met.name_key AS name_key, met.created_at AS created_at
FROM met
WHERE (SELECT count(*) AS count_1
FROM met) >= $4::INTEGER UNION ALL (SELECT organization.id AS id, organization.name_key AS name_key, organization.created_at AS created_at
FROM organization
WHERE organization.deleted_at IS NULL AND organization.deactivated_at IS NULL AND organization.name_key IS NOT NULL AND (organization.name_key) > ($1::VARCHAR) AND (SELECT count(*) AS count_1
FROM met) < $4::INTEGER AND organization.name_key >= $2::VARCHAR AND organization.name_key < $3::VARCHAR ORDER BY organization.name_key
 LIMIT $4::INTEGER) UNION ALL (SELECT anon_2.id AS id, anon_2.name_key AS name_key, anon_2.created_at AS created_at
FROM (SELECT organization.id AS id, organization.name_key AS name_key, organization.created_at AS created_at
FROM organization
WHERE organization.deleted_at IS NULL AND organization.deactivated_at IS NULL AND organization.name_key IS NOT NULL AND (organization.name_key) > ($1::VARCHAR) AND (SELECT count(*) AS count_1
FROM met) < $4::INTEGER AND organization.domain >= $2::VARCHAR AND organization.domain < $3::VARCHAR AND NOT (organization.name_key >= $2::VARCHAR AND organization.name_key < $3::VARCHAR)
 LIMIT ALL OFFSET $5::INTEGER) AS anon_2 ORDER BY anon_2.name_key
 LIMIT $4::INTEGER) UNION ALL (SELECT anon_3.id AS id, anon_3.name_key AS name_key, anon_3.created_at AS created_at
FROM (SELECT anon_4.id AS id, anon_4.name AS name, anon_4.name_key AS name_key, anon_4.domain AS domain, anon_4.primary_address AS primary_address, anon_4.created_at AS created_at, anon_4.updated_at AS updated_at, anon_4.deactivated_at AS deactivated_at, anon_4.deleted_at AS deleted_at, anon_4.version AS version
FROM (SELECT membership.org_id AS org_id
FROM membership
WHERE membership.user_id = $6::VARCHAR AND membership.active) AS mine JOIN LATERAL (SELECT organization.id AS id, organization.name AS name, organization.name_key AS name_key, organization.domain AS domain, NULL AS primary_address, organization.created_at AS created_at, organization.updated_at AS updated_at, organization.deactivated_at AS deactivated_at, organization.deleted_at AS deleted_at, organization.version AS version
FROM organization
WHERE organization.id = mine.org_id AND organization.deleted_at IS NULL AND NOT (organization.deleted_at IS NULL AND organization.deactivated_at IS NULL) AND organization.name_key IS NOT NULL AND (organization.name_key) > ($1::VARCHAR) AND (organization.name_key >= $2::VARCHAR AND organization.name_key < $3::VARCHAR OR organization.domain >= $2::VARCHAR AND organization.domain < $3::VARCHAR)
 LIMIT ALL OFFSET $7::INTEGER) AS anon_4 ON true) AS anon_3 ORDER BY anon_3.name_key
 LIMIT $4::INTEGER)) AS chosen ORDER BY chosen.name_key
 LIMIT $4::INTEGER) AS page ON page.id = organization.id LEFT OUTER JOIN membership AS own ON own.user_id = $6::VARCHAR AND own.org_id = page.id ORDER BY organization.name_key;

-- worker: reference.MEMBERSHIPS._upsert
INSERT INTO membership (user_id, org_id, role, joined_at, active) SELECT given.user_id, given.org_id, given.role, given.joined_at, given.active
FROM unnest($1::TEXT[], $2::UUID[], $3::TEXT[], $4::TIMESTAMP WITH TIME ZONE[], $5::BOOLEAN[]) AS given(user_id, org_id, role, joined_at, active) ON CONFLICT (user_id, org_id) DO UPDATE SET role = excluded.role, joined_at = excluded.joined_at, active = excluded.active WHERE membership.role IS DISTINCT FROM excluded.role OR membership.joined_at IS DISTINCT FROM excluded.joined_at OR membership.active IS DISTINCT FROM excluded.active;

-- worker: reference.MEMBERSHIPS._delete
DELETE FROM membership USING unnest($1::TEXT[], $2::UUID[]) AS given(user_id, org_id) WHERE membership.user_id = given.user_id AND membership.org_id = given.org_id;

-- worker: reference.PARTNERSHIPS._upsert
INSERT INTO partnership (partner_org_id, org_id, role) SELECT given.partner_org_id, given.org_id, given.role
FROM unnest($1::UUID[], $2::UUID[], $3::TEXT[]) AS given(partner_org_id, org_id, role) ON CONFLICT (partner_org_id, org_id) DO UPDATE SET role = excluded.role WHERE partnership.role IS DISTINCT FROM excluded.role;

-- worker: reference.PARTNERSHIPS._delete
DELETE FROM partnership USING unnest($1::UUID[], $2::UUID[]) AS given(partner_org_id, org_id) WHERE partnership.partner_org_id = given.partner_org_id AND partnership.org_id = given.org_id;

-- worker: reference.STAFF._upsert
INSERT INTO staff (user_id) SELECT given.user_id
FROM unnest($1::TEXT[]) AS given(user_id) ON CONFLICT (user_id) DO NOTHING;

-- worker: reference.STAFF._delete
DELETE FROM staff USING unnest($1::TEXT[]) AS given(user_id) WHERE staff.user_id = given.user_id;

-- worker: statements.append_journal, as COPY has it
INSERT INTO journal ("position", "command_id", "org_id", "version", "command_type", "event_type", "outcome", "code", "actor", "request_digest", "command_partition", "command_offset", "changed", "before", "after", "problem", "traceparent", "recorded_at") SELECT "position", "command_id", "org_id", "version", "command_type", "event_type", "outcome", "code", "actor", "request_digest", "command_partition", "command_offset", "changed", "before", "after", "problem", "traceparent", "recorded_at" FROM (SELECT 1::bigint AS position, gen_random_uuid() AS command_id, NULL::uuid AS org_id, NULL::bigint AS version, 'org.update' AS command_type, NULL::text AS event_type, 'rejected' AS outcome, 404::smallint AS code, NULL::text AS actor, ''::bytea AS request_digest, 0 AS command_partition, 0::bigint AS command_offset, NULL::text AS changed, NULL::text AS before, NULL::text AS after, NULL::text AS problem, NULL::text AS traceparent, now() AS recorded_at) AS given;
