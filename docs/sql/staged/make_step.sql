-- staged/make_step
--
-- Makes the table for what a step reads of events or results. A rebuild or a recovery, for each step.

CREATE TEMPORARY TABLE restoring_outcome (
position bigint NOT NULL, command_id uuid NOT NULL, org_id uuid, version bigint, event_type text,
outcome text NOT NULL, code smallint NOT NULL, actor text, changed text, before text, after text,
    problem text,
traceparent text, recorded_at timestamptz NOT NULL
) ON COMMIT DROP;
