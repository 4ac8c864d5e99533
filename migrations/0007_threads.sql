-- Conversations: threads that several workflows run on, one after the other. An order over all events. What a graph tells
-- of itself beyond its shape.

CREATE DOMAIN keyturn.thread_kind AS text CHECK (VALUE IN ('thread', 'ag-ui', 'session'));

-- Clients choose `thread_id`, within their namespace; LangGraph's own tables know the thread by `thread_key`.
CREATE TABLE keyturn.threads (
    thread_key   text PRIMARY KEY,
    namespace    text NOT NULL,
    thread_id    text NOT NULL,
    kind         keyturn.thread_kind NOT NULL,
    graph        text,
    person       text NOT NULL,
    mode         keyturn.workflow_mode NOT NULL DEFAULT 'interactive',
    title        text NOT NULL DEFAULT '',
    case_id      text,
    metadata     jsonb NOT NULL DEFAULT '{}',
    idle_seconds double precision,
    -- A session is not idle before this; then somebody looks.
    idle_at      timestamptz,
    ended_at     timestamptz,
    ended_reason text,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    UNIQUE (namespace, thread_id)
);
CREATE INDEX threads_page ON keyturn.threads (namespace, updated_at DESC, thread_key);
CREATE INDEX threads_newest ON keyturn.threads (namespace, created_at DESC, thread_id);
CREATE INDEX sessions_idle ON keyturn.threads (idle_at) WHERE kind = 'session' AND ended_at IS NULL;
CREATE INDEX sessions_open ON keyturn.threads (namespace, person, created_at, thread_key)
    WHERE kind = 'session' AND ended_at IS NULL;
CREATE INDEX sessions_ended ON keyturn.threads (namespace, person, created_at DESC, thread_key DESC)
    WHERE kind = 'session' AND ended_at IS NOT NULL;

-- A workflow is one run of its thread, and at most one of them is under way. Without a thread it is one of its own.
ALTER TABLE keyturn.workflows
    ADD COLUMN thread_key text REFERENCES keyturn.threads,
    ADD COLUMN continues  boolean NOT NULL DEFAULT false,
    ADD COLUMN capture    boolean NOT NULL DEFAULT false,
    -- It has a plan of steps, or has told its progress.
    ADD COLUMN task       boolean NOT NULL DEFAULT false,
    -- The number of the newest note told between commits, so that none is told twice.
    ADD COLUMN noted      bigint NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX workflows_active_on_thread ON keyturn.workflows (thread_key)
    WHERE thread_key IS NOT NULL AND status IN ('ready', 'running', 'waiting');
CREATE INDEX workflows_by_thread ON keyturn.workflows (thread_key, created_at DESC) WHERE thread_key IS NOT NULL;
CREATE INDEX workflows_captured ON keyturn.workflows (namespace, created_at DESC, workflow_id DESC) WHERE capture;

CREATE INDEX workflows_tasks_open ON keyturn.workflows (namespace, requester) WHERE task AND finished_at IS NULL;
CREATE INDEX workflows_tasks_ended ON keyturn.workflows (namespace, requester, finished_at)
    WHERE task AND finished_at IS NOT NULL;
-- The newest that a node told of its progress.
CREATE INDEX events_progress ON keyturn.events (workflow_id, (body ->> 'node'), seq DESC) WHERE type = 'progress';

ALTER TABLE keyturn.graphs ADD COLUMN traits json NOT NULL DEFAULT '{}';

-- The order in which events were appended, over all workflows. Commits overtake one another: who reads along must not
-- pass a number that may still appear.
-- What there is gets its numbers by time, and within a chain by its order.
ALTER TABLE keyturn.events ADD COLUMN position bigint;
UPDATE keyturn.events e SET position = n.position
  FROM (SELECT workflow_id, seq, row_number() OVER (ORDER BY latest, workflow_id, seq) AS position
          FROM (SELECT workflow_id, seq, max(at) OVER (PARTITION BY workflow_id ORDER BY seq) AS latest
                  FROM keyturn.events) AS o) AS n
 WHERE (e.workflow_id, e.seq) = (n.workflow_id, n.seq);
ALTER TABLE keyturn.events ALTER COLUMN position SET NOT NULL,
                           ALTER COLUMN position ADD GENERATED ALWAYS AS IDENTITY;
SELECT setval('keyturn.events_position_seq', max(position)) FROM keyturn.events HAVING max(position) IS NOT NULL;
CREATE INDEX events_feed ON keyturn.events (namespace, position);

-- Runs as the LangGraph API counts them: one for each input and one for each resume.
CREATE TABLE keyturn.runs (
    run_id      text PRIMARY KEY,
    namespace   text NOT NULL,
    thread_key  text NOT NULL,
    workflow_id text NOT NULL REFERENCES keyturn.workflows ON DELETE CASCADE,
    after_seq   bigint NOT NULL,
    created_at  timestamptz NOT NULL,
    metadata    json NOT NULL DEFAULT '{}',
    kwargs      json NOT NULL DEFAULT '{}'
);
CREATE INDEX runs_of_thread ON keyturn.runs (namespace, thread_key, created_at DESC);
CREATE INDEX runs_of_workflow ON keyturn.runs (workflow_id);

-- Events of a running node between commits, if the caller still owns the row; whether it does. What was told already
-- under this number is not told again. Several may be one transaction: then it does not wait for a row another holds.
CREATE FUNCTION keyturn.note_events(p_workflow text, p_epoch bigint, p_number bigint, p_now timestamptz, p_types text[],
                                    p_actors text[], p_bodies text[], p_wait boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    w record;
BEGIN
    IF p_wait THEN
        SELECT namespace, epoch, status, last_seq, last_hash, noted INTO w
          FROM keyturn.workflows WHERE workflow_id = p_workflow FOR UPDATE;
    ELSE
        SELECT namespace, epoch, status, last_seq, last_hash, noted INTO w
          FROM keyturn.workflows WHERE workflow_id = p_workflow FOR UPDATE SKIP LOCKED;
    END IF;
    IF NOT FOUND OR w.epoch <> p_epoch OR w.status <> 'running' THEN
        RETURN false;
    END IF;
    IF w.noted < p_number THEN
        w.last_hash := keyturn.chain_events(p_workflow, w.namespace, w.last_seq, w.last_hash, coalesce(p_now, now()),
                                            p_types, p_actors, p_bodies);
        UPDATE keyturn.workflows
           SET last_seq = w.last_seq + cardinality(p_types), last_hash = w.last_hash, noted = p_number,
               task = task OR 'progress' = ANY (p_types)
         WHERE workflow_id = p_workflow;
    END IF;
    RETURN true;
END $$;

-- One commit of a segment, if the caller still owns the row; whether it does. Without a status it is a barrier; else the
-- lease ends with that status. Several may be one transaction: then it does not wait for a row that another one holds.
CREATE OR REPLACE FUNCTION keyturn.commit_segment(p_workflow text, p_epoch bigint, p_now timestamptz, p_parts json,
                                       p_bytes bytea[], p_wait boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    w     record;
    p     record;
    v_now timestamptz := coalesce(p_now, now());
BEGIN
    IF p_wait THEN
        SELECT namespace, thread_key, epoch, status, last_seq, last_hash INTO w
          FROM keyturn.workflows WHERE workflow_id = p_workflow FOR UPDATE;
    ELSE
        SELECT namespace, thread_key, epoch, status, last_seq, last_hash INTO w
          FROM keyturn.workflows WHERE workflow_id = p_workflow FOR UPDATE SKIP LOCKED;
    END IF;
    IF NOT FOUND OR w.epoch <> p_epoch OR w.status <> 'running' THEN
        RETURN false;
    END IF;
    SELECT * INTO p FROM json_to_record(p_parts) AS p (
        checkpoints json, blobs json, writes json, delivered text[], executed boolean, completed text[],
        approvals json, notices json, ended text[], ended_as text, types text[], actors text[], bodies text[],
        status text, reason text, error json, result json, node text, risk text, checkpointed boolean,
        progress boolean, finished boolean, run_at timestamptz);

    PERFORM keyturn.write_checkpoints(coalesce(w.thread_key, p_workflow), p.checkpoints, p.blobs, p.writes, p_bytes);

    -- Decisions that what is committed contains; approvals whose node or workflow is done with it, and those behind which
    -- something has run by now.
    IF p.delivered IS NOT NULL OR p.executed OR p.completed IS NOT NULL THEN
        UPDATE keyturn.approvals a
           SET delivered_at = coalesce(delivered_at, v_now),
               begun_at = coalesce(begun_at, CASE WHEN p.completed IS NOT NULL THEN v_now END),
               state = CASE WHEN f.done THEN 'executed' ELSE a.state END,
               executed_at = CASE WHEN f.done THEN v_now ELSE executed_at END
          FROM (SELECT approval_id, state = 'approved' AND kind = 'approval'
                       AND (p.executed OR coalesce(node = ANY (p.completed), false))
                       AND NOT EXISTS (SELECT FROM keyturn.effects e
                                        WHERE e.approval_id = d.approval_id AND e.state <> 'finished') AS done
                  FROM keyturn.approvals d
                 WHERE workflow_id = p_workflow AND (delivered_at IS NOT NULL OR approval_id = ANY (p.delivered))) AS f
         WHERE a.approval_id = f.approval_id
           AND (f.done OR delivered_at IS NULL OR begun_at IS NULL AND p.completed IS NOT NULL);
    END IF;
    IF p.approvals IS NOT NULL THEN
        INSERT INTO keyturn.approvals (
            approval_id, namespace, workflow_id, interrupt_id, item, round, node, kind, dialect, payload, action,
            question, allowed, description, on_reject, digest, volatile_fields, requester, on_behalf_of, launched_by,
            risk_level, reasons, route, confidence, urgent, policy, policy_versions, requirement, roles, approval_ttl,
            requested_at, due_at, expires_at, escalate_at, lapses_at, state, decision, resolved_by, resolved_at, asked,
            asked_digest, editable, terms, policy_seen, flags, remind_at)
        SELECT approval_id, namespace, workflow_id, interrupt_id, item, round, node, kind, dialect,
            coalesce(payload, 'null'), action,
            question, allowed, description, on_reject, digest, volatile_fields, requester, on_behalf_of, launched_by,
            risk_level, reasons, route, confidence, urgent, policy, policy_versions, requirement, roles, approval_ttl,
            requested_at, due_at, expires_at, escalate_at, lapses_at, state, decision, resolved_by, resolved_at, asked,
            asked_digest, editable, coalesce(terms, '{}'), policy_seen, coalesce(flags, '{}'), remind_at
          FROM json_populate_recordset(NULL::keyturn.approvals, p.approvals)
        ON CONFLICT (workflow_id, interrupt_id, item, round) DO NOTHING;
    END IF;
    IF p.ended IS NOT NULL THEN
        -- Approvals that were good no longer: lapsed, or stale as their voters lost their roles.
        UPDATE keyturn.approvals SET state = p.ended_as WHERE approval_id = ANY (p.ended) AND state = 'approved';
    END IF;
    IF p.notices IS NOT NULL THEN
        PERFORM keyturn.queue_notices(p_workflow, w.namespace, v_now, p.notices);
    END IF;

    IF p.types IS NOT NULL THEN
        w.last_hash := keyturn.chain_events(p_workflow, w.namespace, w.last_seq, w.last_hash, v_now, p.types, p.actors,
                                            p.bodies);
        w.last_seq := w.last_seq + cardinality(p.types);
    END IF;

    IF p.status IS NULL THEN
        -- Progress was made, so the claims without progress start from nothing.
        UPDATE keyturn.workflows
           SET checkpointed = true, attempts = 0, node = p.node, updated_at = v_now,
               risk_level = coalesce(p.risk, risk_level), task = task OR coalesce('progress' = ANY (p.types), false),
               last_seq = w.last_seq, last_hash = w.last_hash
         WHERE workflow_id = p_workflow;
    ELSE
        UPDATE keyturn.workflows
           SET status = p.status, reason = p.reason, error = p.error, result = p.result, node = p.node,
               risk_level = coalesce(p.risk, risk_level), checkpointed = checkpointed OR p.checkpointed,
               attempts = CASE WHEN p.progress THEN 0 ELSE attempts END, owner = NULL, lease_until = NULL,
               run_at = coalesce(p.run_at, run_at), updated_at = v_now, finished_at = CASE WHEN p.finished THEN v_now END,
               task = task OR coalesce('progress' = ANY (p.types), false),
               last_seq = w.last_seq, last_hash = w.last_hash
         WHERE workflow_id = p_workflow;
    END IF;
    RETURN true;
END $$;

-- Who was shown what of that which waits: an answer that names nothing is for what its sender has seen.
CREATE TABLE keyturn.seen_requests (
    approval_id text NOT NULL REFERENCES keyturn.approvals ON DELETE CASCADE,
    person      text NOT NULL,
    PRIMARY KEY (approval_id, person)
);
