-- The units of the hot path as functions: one call is one round trip, one transaction, and one new version of the
-- workflow's row. They write what the statements they stand for wrote, in the same lock order.

-- The hash of one event, over the one before it.
CREATE FUNCTION keyturn.event_hash(p_previous bytea, p_seq bigint, p_at timestamptz, p_type text, p_actor text,
                                   p_body text) RETURNS bytea LANGUAGE sql STABLE
RETURN sha256(p_previous || convert_to(
    E'\n' || p_seq || E'\n' || to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
          || E'\n' || p_type || E'\n' || p_actor || E'\n' || p_body,
    'UTF8'));

-- Adds events behind the head of a workflow's chain and returns the new head. The caller holds the row and keeps the
-- head on it.
CREATE FUNCTION keyturn.chain_events(p_workflow text, p_namespace text, p_seq bigint, p_hash bytea, p_at timestamptz,
                                     p_types text[], p_actors text[], p_bodies text[]) RETURNS bytea
LANGUAGE plpgsql AS $$
DECLARE
    v_hash   bytea := p_hash;
    v_hashes bytea[];
BEGIN
    FOR i IN 1 .. cardinality(p_types) LOOP
        v_hash := keyturn.event_hash(v_hash, p_seq + i, p_at, p_types[i], p_actors[i], p_bodies[i]);
        v_hashes[i] := v_hash;
    END LOOP;
    INSERT INTO keyturn.events (workflow_id, seq, namespace, at, type, actor, body, hash)
    SELECT p_workflow, p_seq + e.n, p_namespace, p_at, e.type, e.actor, e.body::json, e.hash
      FROM unnest(p_types, p_actors, p_bodies, v_hashes) WITH ORDINALITY AS e (type, actor, body, hash, n);
    RETURN v_hash;
END $$;

CREATE OR REPLACE FUNCTION keyturn.append_events(p_workflow text, p_at timestamptz, p_types text[], p_actors text[],
                                                 p_bodies text[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    w record;
BEGIN
    SELECT namespace, last_seq, last_hash INTO STRICT w
      FROM keyturn.workflows WHERE workflow_id = p_workflow FOR UPDATE;
    w.last_hash := keyturn.chain_events(p_workflow, w.namespace, w.last_seq, w.last_hash, p_at, p_types, p_actors,
                                        p_bodies);
    w.last_seq := w.last_seq + cardinality(p_types);
    UPDATE keyturn.workflows SET last_seq = w.last_seq, last_hash = w.last_hash WHERE workflow_id = p_workflow;
    RETURN w.last_seq;
END $$;

-- LangGraph's rows of one thread. The JSON arguments are arrays of objects, null for none; a blob's or write's `at` is
-- where its bytes stand in p_bytes.
CREATE FUNCTION keyturn.write_checkpoints(p_thread text, p_checkpoints json, p_blobs json, p_writes json,
                                          p_bytes bytea[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Blobs are immutable per version; a task's control writes replace.
    IF p_blobs IS NOT NULL THEN
        INSERT INTO langgraph.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
        SELECT p_thread, b.ns, b.channel, b.version, b.type, p_bytes[b.at]
          FROM json_to_recordset(p_blobs) AS b (ns text, channel text, version text, type text, at integer)
        ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING;
    END IF;
    IF p_writes IS NOT NULL THEN
        INSERT INTO langgraph.checkpoint_writes
               (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
        SELECT p_thread, x.ns, x.id, x.task, x.path, x.idx, x.channel, x.type, p_bytes[x.at]
          FROM json_to_recordset(p_writes) AS x (ns text, id text, task text, path text, idx integer, channel text,
                                                 type text, at integer)
        ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
        DO UPDATE SET channel = EXCLUDED.channel, type = EXCLUDED.type, blob = EXCLUDED.blob;
    END IF;
    IF p_checkpoints IS NOT NULL THEN
        INSERT INTO langgraph.checkpoints
               (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
        SELECT p_thread, c.ns, c.id, c.parent, c.body::jsonb, c.metadata::jsonb
          FROM json_to_recordset(p_checkpoints) AS c (ns text, id text, parent text, body text, metadata text)
        ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id)
        DO UPDATE SET checkpoint = EXCLUDED.checkpoint, metadata = EXCLUDED.metadata;
    END IF;
END $$;

-- One commit of a segment. Proves the lease first (SQLSTATE KT001 if it is gone); arguments that are null write nothing.
-- p_status null is a barrier; else the lease ends with that status. JSON that is kept as it came is given as text.
CREATE FUNCTION keyturn.commit_segment(
    p_workflow text, p_epoch bigint, p_now timestamptz,
    p_checkpoints json, p_blobs json, p_writes json, p_bytes bytea[],
    p_delivered text[], p_executed boolean, p_completed text[], p_approvals json, p_lapsed text[],
    p_types text[], p_actors text[], p_bodies text[],
    p_status text, p_reason text, p_error text, p_result text, p_node text, p_risk text,
    p_checkpointed boolean, p_progress boolean, p_finished boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    w     record;
    v_now timestamptz := coalesce(p_now, now());
BEGIN
    SELECT namespace, last_seq, last_hash INTO w FROM keyturn.workflows
     WHERE workflow_id = p_workflow AND epoch = p_epoch AND status = 'running' FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'workflow % is not held at epoch %', p_workflow, p_epoch USING ERRCODE = 'KT001';
    END IF;

    IF p_checkpoints IS NOT NULL OR p_blobs IS NOT NULL OR p_writes IS NOT NULL THEN
        PERFORM keyturn.write_checkpoints(p_workflow, p_checkpoints, p_blobs, p_writes, p_bytes);
    END IF;

    -- Decisions that what is committed contains; and of those already delivered, the ones whose node or workflow is done.
    IF p_delivered IS NOT NULL THEN
        UPDATE keyturn.approvals SET delivered_at = v_now
         WHERE approval_id = ANY (p_delivered) AND delivered_at IS NULL;
    END IF;
    IF p_executed OR p_completed IS NOT NULL THEN
        UPDATE keyturn.approvals a SET state = 'executed', executed_at = v_now
         WHERE workflow_id = p_workflow AND state = 'approved' AND kind = 'approval' AND delivered_at IS NOT NULL
           AND (p_executed OR a.node = ANY (p_completed))
           AND NOT EXISTS (SELECT FROM keyturn.effects e WHERE e.approval_id = a.approval_id AND e.state <> 'finished');
    END IF;
    IF p_approvals IS NOT NULL THEN
        INSERT INTO keyturn.approvals (
            approval_id, namespace, workflow_id, interrupt_id, item, round, node, kind, dialect, payload, action,
            question, allowed, description, on_reject, digest, volatile_fields, requester, on_behalf_of, launched_by,
            risk_level, reasons, route, confidence, urgent, policy, policy_versions, requirement, roles, approval_ttl,
            requested_at, due_at, expires_at, escalate_at, lapses_at, state, decision, resolved_by, resolved_at)
        SELECT approval_id, namespace, workflow_id, interrupt_id, item, round, node, kind, dialect,
            coalesce(payload, 'null'), action,
            question, allowed, description, on_reject, digest, volatile_fields, requester, on_behalf_of, launched_by,
            risk_level, reasons, route, confidence, urgent, policy, policy_versions, requirement, roles, approval_ttl,
            requested_at, due_at, expires_at, escalate_at, lapses_at, state, decision, resolved_by, resolved_at
          FROM json_populate_recordset(NULL::keyturn.approvals, p_approvals)
        ON CONFLICT (workflow_id, interrupt_id, item, round) DO NOTHING;
    END IF;
    IF p_lapsed IS NOT NULL THEN
        UPDATE keyturn.approvals SET state = 'lapsed' WHERE approval_id = ANY (p_lapsed) AND state = 'approved';
    END IF;

    IF p_types IS NOT NULL THEN
        w.last_hash := keyturn.chain_events(p_workflow, w.namespace, w.last_seq, w.last_hash, v_now, p_types, p_actors,
                                            p_bodies);
        w.last_seq := w.last_seq + cardinality(p_types);
    END IF;

    IF p_status IS NULL THEN
        -- Progress was made, so the claims without progress start from nothing.
        UPDATE keyturn.workflows
           SET checkpointed = true, attempts = 0, node = p_node, updated_at = v_now,
               risk_level = coalesce(p_risk, risk_level),
               last_seq = w.last_seq, last_hash = w.last_hash
         WHERE workflow_id = p_workflow;
    ELSE
        UPDATE keyturn.workflows
           SET status = p_status, reason = p_reason, error = p_error::json, result = p_result::json, node = p_node,
               risk_level = coalesce(p_risk, risk_level), checkpointed = checkpointed OR p_checkpointed,
               attempts = CASE WHEN p_progress THEN 0 ELSE attempts END, owner = NULL, lease_until = NULL,
               updated_at = v_now, finished_at = CASE WHEN p_finished THEN v_now END,
               last_seq = w.last_seq, last_hash = w.last_hash
         WHERE workflow_id = p_workflow;
    END IF;
END $$;
