-- The units of the hot path as functions: one call is one round trip and one new version of the workflow's row. What is
-- written is one JSON object, whose absent members write nothing.

-- A row is looked up by its key alone, and what else must be true of it is looked at then: a condition on the status would
-- let Postgres take an index of few rows for it as long as its tables are small, and keep to that when they are not.

-- Proves that the caller still owns the row and locks it for the rest of the transaction (SQLSTATE KT001 if not).
CREATE FUNCTION keyturn.hold_lease(p_workflow text, p_epoch bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    w record;
BEGIN
    SELECT epoch, status INTO w FROM keyturn.workflows WHERE workflow_id = p_workflow FOR UPDATE;
    IF NOT FOUND OR w.epoch <> p_epoch OR w.status <> 'running' THEN
        RAISE EXCEPTION 'workflow % is not held at epoch %', p_workflow, p_epoch USING ERRCODE = 'KT001';
    END IF;
END $$;

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

-- Appends events to a workflow's chain and leaves the new head on its row, which the caller holds or has just written.
CREATE FUNCTION keyturn.append_events(p_workflow text, p_at timestamptz, p_types text[], p_actors text[],
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

-- One commit of a segment, if the caller still owns the row; whether it does. Without a status it is a barrier; else the
-- lease ends with that status. Several may be one transaction: then it does not wait for a row that another one holds.
CREATE FUNCTION keyturn.commit_segment(p_workflow text, p_epoch bigint, p_now timestamptz, p_parts json,
                                       p_bytes bytea[], p_wait boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    w     record;
    p     record;
    v_now timestamptz := coalesce(p_now, now());
BEGIN
    IF p_wait THEN
        SELECT namespace, epoch, status, last_seq, last_hash INTO w
          FROM keyturn.workflows WHERE workflow_id = p_workflow FOR UPDATE;
    ELSE
        SELECT namespace, epoch, status, last_seq, last_hash INTO w
          FROM keyturn.workflows WHERE workflow_id = p_workflow FOR UPDATE SKIP LOCKED;
    END IF;
    IF NOT FOUND OR w.epoch <> p_epoch OR w.status <> 'running' THEN
        RETURN false;
    END IF;
    SELECT * INTO p FROM json_to_record(p_parts) AS p (
        checkpoints json, blobs json, writes json, delivered text[], executed boolean, completed text[],
        approvals json, lapsed text[], types text[], actors text[], bodies text[], status text, reason text, error json,
        result json, node text, risk text, checkpointed boolean, progress boolean, finished boolean);

    PERFORM keyturn.write_checkpoints(p_workflow, p.checkpoints, p.blobs, p.writes, p_bytes);

    -- Decisions that what is committed contains; and approvals whose node or workflow is done with it.
    IF p.delivered IS NOT NULL OR p.executed OR p.completed IS NOT NULL THEN
        UPDATE keyturn.approvals a
           SET delivered_at = coalesce(delivered_at, v_now),
               state = CASE WHEN f.done THEN 'executed' ELSE a.state END,
               executed_at = CASE WHEN f.done THEN v_now ELSE executed_at END
          FROM (SELECT approval_id, state = 'approved' AND kind = 'approval'
                       AND (p.executed OR coalesce(node = ANY (p.completed), false))
                       AND NOT EXISTS (SELECT FROM keyturn.effects e
                                        WHERE e.approval_id = d.approval_id AND e.state <> 'finished') AS done
                  FROM keyturn.approvals d
                 WHERE workflow_id = p_workflow AND (delivered_at IS NOT NULL OR approval_id = ANY (p.delivered))) AS f
         WHERE a.approval_id = f.approval_id AND (f.done OR delivered_at IS NULL);
    END IF;
    IF p.approvals IS NOT NULL THEN
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
          FROM json_populate_recordset(NULL::keyturn.approvals, p.approvals)
        ON CONFLICT (workflow_id, interrupt_id, item, round) DO NOTHING;
    END IF;
    IF p.lapsed IS NOT NULL THEN
        UPDATE keyturn.approvals SET state = 'lapsed' WHERE approval_id = ANY (p.lapsed) AND state = 'approved';
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
               risk_level = coalesce(p.risk, risk_level),
               last_seq = w.last_seq, last_hash = w.last_hash
         WHERE workflow_id = p_workflow;
    ELSE
        UPDATE keyturn.workflows
           SET status = p.status, reason = p.reason, error = p.error, result = p.result, node = p.node,
               risk_level = coalesce(p.risk, risk_level), checkpointed = checkpointed OR p.checkpointed,
               attempts = CASE WHEN p.progress THEN 0 ELSE attempts END, owner = NULL, lease_until = NULL,
               updated_at = v_now, finished_at = CASE WHEN p.finished THEN v_now END,
               last_seq = w.last_seq, last_hash = w.last_hash
         WHERE workflow_id = p_workflow;
    END IF;
    RETURN true;
END $$;

-- A workflow ended: nothing of it can be decided any more. Returns the approvals' ids; the caller holds the row.
CREATE FUNCTION keyturn.cancel_approvals(p_workflow text, p_by text, p_at timestamptz) RETURNS SETOF text
LANGUAGE sql AS $$
    UPDATE keyturn.approvals
       SET state = 'cancelled',
           resolved_by = CASE WHEN state = 'pending' THEN p_by ELSE resolved_by END,
           resolved_at = CASE WHEN state = 'pending' THEN p_at ELSE resolved_at END
     WHERE workflow_id = p_workflow AND (state = 'pending' OR state = 'approved' AND delivered_at IS NULL)
    RETURNING approval_id
$$;

-- What one decision writes, if the workflow's row is still the version it was judged on; whether it is. Without a status
-- the workflow stays as it is; where it goes on, the life of each approval that nothing was done with yet begins anew
-- (requests of one pause run together, so none is older than the last decision). It waits as `commit_segment` does.
CREATE FUNCTION keyturn.decide(p_workflow text, p_version xid, p_now timestamptz, p_parts json, p_wait boolean)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    w record;
    p record;
BEGIN
    IF p_wait THEN
        SELECT namespace, last_seq, last_hash INTO w
          FROM keyturn.workflows WHERE workflow_id = p_workflow AND xmin = p_version FOR UPDATE;
    ELSE
        SELECT namespace, last_seq, last_hash INTO w
          FROM keyturn.workflows WHERE workflow_id = p_workflow AND xmin = p_version FOR UPDATE SKIP LOCKED;
    END IF;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT * INTO p FROM json_to_record(p_parts) AS p (
        approval text, vote boolean, revision integer, voter text, via text, verdict text, roles text[],
        justification text, state text, resolved_by text, decision json, cancel boolean, status text, reason text,
        finished boolean, types text[], actors text[], bodies text[]);

    IF p.vote THEN
        -- A changed mind: the earlier vote of the same person on the same revision no longer counts.
        UPDATE keyturn.votes SET superseded = true
         WHERE approval_id = p.approval AND revision = p.revision AND voter = p.voter AND NOT superseded;
        INSERT INTO keyturn.votes (namespace, approval_id, revision, voter, via, verdict, roles, justification, at)
        VALUES (w.namespace, p.approval, p.revision, p.voter, p.via, p.verdict, p.roles, p.justification, p_now);
    END IF;
    IF p.state IS NOT NULL THEN
        UPDATE keyturn.approvals
           SET state = p.state, decision = p.decision, resolved_by = p.resolved_by, resolved_at = p_now,
               lapses_at = CASE WHEN p.state = 'approved' THEN p_now + approval_ttl END
         WHERE approval_id = p.approval;
    END IF;
    IF p.cancel THEN
        PERFORM keyturn.cancel_approvals(p_workflow, p.resolved_by, p_now);
    END IF;
    IF p.status = 'ready' THEN
        UPDATE keyturn.approvals SET lapses_at = p_now + approval_ttl
         WHERE workflow_id = p_workflow AND state = 'approved' AND delivered_at IS NULL AND approval_id <> p.approval;
    END IF;

    w.last_hash := keyturn.chain_events(p_workflow, w.namespace, w.last_seq, w.last_hash, p_now, p.types, p.actors,
                                        p.bodies);
    w.last_seq := w.last_seq + cardinality(p.types);
    IF p.status IS NULL THEN
        UPDATE keyturn.workflows SET last_seq = w.last_seq, last_hash = w.last_hash WHERE workflow_id = p_workflow;
    ELSE
        -- The epoch rises, so whoever held the row is fenced out.
        UPDATE keyturn.workflows
           SET status = p.status, reason = p.reason, error = NULL, epoch = epoch + 1, attempts = 0, owner = NULL,
               lease_until = NULL, run_at = p_now, updated_at = p_now,
               finished_at = CASE WHEN p.finished THEN p_now END, last_seq = w.last_seq, last_hash = w.last_hash
         WHERE workflow_id = p_workflow;
    END IF;
    RETURN true;
END $$;
