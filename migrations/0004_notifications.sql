-- Notifications: what is worth telling (notices), and each message to a channel that came of it (deliveries).
--
-- A notice is written, with the one chore that looks after it, in the transaction that causes it; who is told, and over
-- which channels, is worked out later. A delivery's row is what counts: the jobs only say when to look at it. An attempt
-- is claimed by moving `next_at` behind the longest time it may take, so that no two send at once.
-- Lock order: the workflow, then its notices (by id), then deliveries.

CREATE DOMAIN keyturn.notice_kind AS text
    CHECK (VALUE IN ('requested', 'revised', 'reminder', 'escalated', 'settled', 'break_glass', 'review_due',
                     'unroutable'));
CREATE DOMAIN keyturn.delivery_state AS text CHECK (VALUE IN ('queued', 'sent', 'dead'));

-- `fanned_at` is when its deliveries were written, be there any or none.
CREATE TABLE keyturn.notices (
    notice_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace   text NOT NULL,
    workflow_id text NOT NULL REFERENCES keyturn.workflows ON DELETE CASCADE,
    approval_id text,
    kind        keyturn.notice_kind NOT NULL,
    data        json NOT NULL,
    at          timestamptz NOT NULL,
    fanned_at   timestamptz
);
CREATE INDEX notices_by_workflow ON keyturn.notices (workflow_id);
CREATE INDEX notices_waiting ON keyturn.notices (workflow_id, notice_id) WHERE fanned_at IS NULL;
CREATE INDEX notices_late ON keyturn.notices (at) WHERE fanned_at IS NULL;

-- `delivery_id` is the same in every attempt, and what a receiver can tell a repetition by. `recipient` is a person, an
-- address, or empty where the channel is one place for all. No text of a message is kept.
CREATE TABLE keyturn.deliveries (
    delivery_id text PRIMARY KEY,
    notice_id   bigint NOT NULL REFERENCES keyturn.notices ON DELETE CASCADE,
    namespace   text NOT NULL,
    workflow_id text NOT NULL,
    approval_id text,
    channel     text NOT NULL,
    recipient   text NOT NULL,
    people      text[] NOT NULL,
    state       keyturn.delivery_state NOT NULL DEFAULT 'queued',
    attempts    integer NOT NULL DEFAULT 0,
    queued_at   timestamptz NOT NULL,
    next_at     timestamptz,
    last_error  text,
    external_id text,
    sent_at     timestamptz,
    UNIQUE (notice_id, channel, recipient)
) WITH (fillfactor = 85);
CREATE INDEX deliveries_by_lane ON keyturn.deliveries (approval_id, channel, recipient, notice_id);
CREATE INDEX deliveries_due ON keyturn.deliveries (next_at) WHERE state = 'queued';

-- Writes notices and defers the one chore for them; all of it commits with the caller's transaction, or not at all.
-- p_notices: [{"kind", "approval_id", "data"}]. Procrastinate's functions find their tables by the caller's search path.
CREATE FUNCTION keyturn.queue_notices(p_workflow text, p_namespace text, p_at timestamptz, p_notices json)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_written bigint;
BEGIN
    INSERT INTO keyturn.notices (namespace, workflow_id, approval_id, kind, data, at)
    SELECT p_namespace, p_workflow, n.approval_id, n.kind, coalesce(n.data, '{}'), coalesce(p_at, now())
      FROM json_to_recordset(p_notices) AS n (kind text, approval_id text, data json);
    GET DIAGNOSTICS v_written = ROW_COUNT;
    IF v_written > 0 THEN
        PERFORM keyturn.defer_chores('keyturn:fan-out', ARRAY[jsonb_build_object('workflow_id', p_workflow)]);
    END IF;
END $$;

-- Defers one job for each of the arguments, to be done at once. No locks: a job that waits for its next attempt would
-- hold up those behind it.
CREATE FUNCTION keyturn.defer_chores(p_task text, p_arguments jsonb[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM procrastinate.procrastinate_defer_jobs_v1(
        ARRAY(SELECT ROW('notifications', p_task, 0, NULL, NULL, one, NULL)
                     ::procrastinate.procrastinate_job_to_defer_v1
                FROM unnest(p_arguments) AS one));
END $$;

-- Writes what came of one notice, [{"channel", "recipient", "people"}], and defers a job for each delivery that is new.
CREATE FUNCTION keyturn.queue_deliveries(p_notice bigint, p_at timestamptz, p_deliveries json)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_new jsonb[];
BEGIN
    WITH added AS (
        INSERT INTO keyturn.deliveries (delivery_id, notice_id, namespace, workflow_id, approval_id, channel, recipient,
                                        people, queued_at, next_at)
        SELECT 'dl_' || replace(gen_random_uuid()::text, '-', ''), n.notice_id, n.namespace, n.workflow_id,
               n.approval_id, d.channel, d.recipient, d.people, coalesce(p_at, now()), coalesce(p_at, now())
          FROM keyturn.notices n,
               json_to_recordset(p_deliveries) AS d (channel text, recipient text, people text[])
         WHERE n.notice_id = p_notice
        ON CONFLICT (notice_id, channel, recipient) DO NOTHING
        RETURNING delivery_id, channel
    )
    SELECT array_agg(jsonb_build_object('delivery_id', delivery_id, 'channel', channel)) INTO v_new FROM added;
    UPDATE keyturn.notices SET fanned_at = coalesce(p_at, now()) WHERE notice_id = p_notice;
    IF v_new IS NOT NULL THEN
        PERFORM keyturn.defer_chores('keyturn:deliver', v_new);
    END IF;
END $$;
