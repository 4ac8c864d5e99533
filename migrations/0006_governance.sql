-- Governance whole: what a request was judged by, edits, escalation, reminders, delegation, break-glass and its review,
-- links that work once.

-- `asked` is what an agent said of itself, from which an edited action is judged again; `terms` what the policy says
-- besides its slots; `tally` how the votes were counted last. `wake_at` is when time next changes something: it is all
-- that the sweep looks at.
ALTER TABLE keyturn.approvals
    ADD COLUMN asked          json,
    ADD COLUMN asked_digest   text NOT NULL DEFAULT '',
    ADD COLUMN editable       boolean NOT NULL DEFAULT false,
    ADD COLUMN terms          json NOT NULL DEFAULT '{}',
    ADD COLUMN policy_seen    integer NOT NULL DEFAULT 0,
    ADD COLUMN tally          json,
    ADD COLUMN flags          text[] NOT NULL DEFAULT '{}',
    ADD COLUMN bypassed       text[] NOT NULL DEFAULT '{}',
    ADD COLUMN remind_at      timestamptz,
    ADD COLUMN revised_at     timestamptz,
    ADD COLUMN escalated_at   timestamptz,
    ADD COLUMN begun_at       timestamptz,
    ADD COLUMN broken_by      text,
    ADD COLUMN review_by      timestamptz,
    ADD COLUMN reviewed_by    text,
    ADD COLUMN reviewed_at    timestamptz,
    ADD COLUMN review_told_at timestamptz,
    ADD COLUMN wake_at        timestamptz GENERATED ALWAYS AS (
        CASE WHEN state = 'pending' THEN least(expires_at, escalate_at, remind_at)
             WHEN state = 'approved' AND delivered_at IS NULL THEN lapses_at
        END) STORED;
UPDATE keyturn.approvals SET asked_digest = digest;
DROP INDEX keyturn.approvals_expiry;
CREATE INDEX approvals_wake ON keyturn.approvals (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX approvals_judged ON keyturn.approvals (namespace, policy_seen) WHERE state = 'pending' AND kind = 'approval';
CREATE INDEX approvals_review ON keyturn.approvals (review_by) WHERE reviewed_at IS NULL AND review_by IS NOT NULL;

-- Somebody decides in another's place for a span of time.
CREATE TABLE keyturn.delegations (
    delegation_id text PRIMARY KEY,
    namespace     text NOT NULL,
    from_person   text NOT NULL,
    to_person     text NOT NULL,
    starts_at     timestamptz NOT NULL,
    ends_at       timestamptz NOT NULL,
    reason        text NOT NULL DEFAULT '',
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL,
    revoked_at    timestamptz,
    FOREIGN KEY (namespace, from_person) REFERENCES keyturn.people ON DELETE CASCADE,
    FOREIGN KEY (namespace, to_person) REFERENCES keyturn.people ON DELETE CASCADE
);
CREATE INDEX delegations_to ON keyturn.delegations (namespace, to_person, ends_at);
CREATE INDEX delegations_from ON keyturn.delegations (namespace, from_person, ends_at);
CREATE TRIGGER delegations_changed AFTER INSERT OR UPDATE OR DELETE ON keyturn.delegations
    FOR EACH ROW EXECUTE FUNCTION keyturn.people_changed();

-- Since when a voter has had a vote on this revision: a changed mind does not make a vote new (rule 12).
ALTER TABLE keyturn.votes ADD COLUMN since timestamptz;

-- Links in messages are signed with a key of their namespace, and each is used once.
ALTER TABLE keyturn.namespaces
    ADD COLUMN link_key bytea NOT NULL
        DEFAULT sha256((gen_random_uuid()::text || gen_random_uuid()::text)::bytea);
CREATE TABLE keyturn.links_used (
    link_id     text PRIMARY KEY,
    namespace   text NOT NULL,
    approval_id text NOT NULL REFERENCES keyturn.approvals ON DELETE CASCADE,
    used_at     timestamptz NOT NULL
);
CREATE INDEX links_used_by_approval ON keyturn.links_used (approval_id);

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
        approvals json, notices json, ended text[], ended_as text, types text[], actors text[], bodies text[],
        status text, reason text, error json, result json, node text, risk text, checkpointed boolean,
        progress boolean, finished boolean, run_at timestamptz);

    PERFORM keyturn.write_checkpoints(p_workflow, p.checkpoints, p.blobs, p.writes, p_bytes);

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
               risk_level = coalesce(p.risk, risk_level),
               last_seq = w.last_seq, last_hash = w.last_hash
         WHERE workflow_id = p_workflow;
    ELSE
        UPDATE keyturn.workflows
           SET status = p.status, reason = p.reason, error = p.error, result = p.result, node = p.node,
               risk_level = coalesce(p.risk, risk_level), checkpointed = checkpointed OR p.checkpointed,
               attempts = CASE WHEN p.progress THEN 0 ELSE attempts END, owner = NULL, lease_until = NULL,
               run_at = coalesce(p.run_at, run_at), updated_at = v_now, finished_at = CASE WHEN p.finished THEN v_now END,
               last_seq = w.last_seq, last_hash = w.last_hash
         WHERE workflow_id = p_workflow;
    END IF;
    RETURN true;
END $$;

-- What one decision writes, if the workflow's row is still the version it was judged on; whether it is. Without a status
-- the workflow stays as it is; where it goes on, the life of each approval that nothing was done with yet begins anew
-- (requests of one pause run together, so none is older than the last decision). It waits as `commit_segment` does.
CREATE OR REPLACE FUNCTION keyturn.decide(p_workflow text, p_version xid, p_now timestamptz, p_parts json, p_wait boolean)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    w record;
    p record;
    n record;
    v_since timestamptz;
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
        approval text, vote boolean, revision integer, voter text, acting_for text, via text, verdict text,
        roles text[], justification text, tally json, state text, resolved_by text, decision json, cancel boolean,
        status text, reason text, finished boolean, types text[], actors text[], bodies text[], notices json,
        policy_version integer, people_version bigint);
    -- Roles, delegations and policies are those of now, too: whoever changes one of them counts it (rule 5).
    SELECT policy_version, people_version INTO n FROM keyturn.namespaces WHERE namespace = w.namespace;
    IF p.policy_version IS DISTINCT FROM n.policy_version OR p.people_version IS DISTINCT FROM n.people_version THEN
        RETURN false;
    END IF;

    IF p.vote THEN
        -- A changed mind: the earlier vote of the same person on the same revision no longer counts.
        UPDATE keyturn.votes SET superseded = true
         WHERE approval_id = p.approval AND revision = p.revision AND voter = p.voter AND NOT superseded
        RETURNING coalesce(since, at) INTO v_since;
        INSERT INTO keyturn.votes (namespace, approval_id, revision, voter, acting_for, via, verdict, roles,
                                   justification, at, since)
        VALUES (w.namespace, p.approval, p.revision, p.voter, p.acting_for, p.via, p.verdict, p.roles,
                p.justification, p_now, v_since);
    END IF;
    IF p.state IS NULL AND p.tally IS NOT NULL THEN
        UPDATE keyturn.approvals SET tally = p.tally WHERE approval_id = p.approval;
    ELSIF p.state IS NOT NULL THEN
        UPDATE keyturn.approvals
           SET state = p.state, tally = coalesce(p.tally, tally), decision = p.decision, resolved_by = p.resolved_by, resolved_at = p_now,
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

    IF p.notices IS NOT NULL THEN
        PERFORM keyturn.queue_notices(p_workflow, w.namespace, p_now, p.notices);
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
