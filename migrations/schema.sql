-- The schema after all migrations, for readers and for a test. Written by './task schema'; never run.

CREATE TABLE keyturn.api_keys (
    key_id text NOT NULL,
    namespace text NOT NULL,
    person text NOT NULL,
    secret_sha256 bytea NOT NULL,
    permissions text[] NOT NULL,
    label text NOT NULL DEFAULT ''::text,
    created_by text NOT NULL,
    created_at timestamp with time zone NOT NULL DEFAULT now(),
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    CONSTRAINT api_keys_pkey PRIMARY KEY (key_id),
    CONSTRAINT api_keys_namespace_person_fkey FOREIGN KEY (namespace, person) REFERENCES keyturn.people(namespace, person) ON DELETE CASCADE
);

CREATE TABLE keyturn.approvals (
    approval_id text NOT NULL,
    namespace text NOT NULL,
    workflow_id text NOT NULL,
    interrupt_id text NOT NULL,
    item integer NOT NULL DEFAULT 0,
    round integer NOT NULL DEFAULT 0,
    node text NOT NULL,
    kind keyturn.approval_kind NOT NULL,
    dialect keyturn.approval_dialect NOT NULL,
    payload json NOT NULL,
    action json,
    question json,
    allowed text[] NOT NULL,
    description text NOT NULL DEFAULT ''::text,
    on_reject keyturn.rejection_outcome NOT NULL DEFAULT 'cancel'::text,
    digest text NOT NULL,
    volatile_fields text[] NOT NULL DEFAULT '{}'::text[],
    revision integer NOT NULL DEFAULT 1,
    requester text NOT NULL,
    on_behalf_of text,
    launched_by text,
    last_editor text,
    risk_level text NOT NULL,
    reasons json NOT NULL,
    route keyturn.approval_route NOT NULL,
    confidence double precision,
    urgent boolean NOT NULL DEFAULT false,
    policy text NOT NULL,
    policy_versions text[] NOT NULL,
    requirement json NOT NULL,
    roles text[] NOT NULL,
    approval_ttl interval NOT NULL,
    requested_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    escalate_at timestamp with time zone,
    lapses_at timestamp with time zone,
    state keyturn.approval_state NOT NULL,
    decision json,
    resolved_by text,
    resolved_at timestamp with time zone,
    delivered_at timestamp with time zone,
    executed_at timestamp with time zone,
    asked json,
    asked_digest text NOT NULL DEFAULT ''::text,
    editable boolean NOT NULL DEFAULT false,
    terms json NOT NULL DEFAULT '{}'::json,
    policy_seen integer NOT NULL DEFAULT 0,
    tally json,
    flags text[] NOT NULL DEFAULT '{}'::text[],
    bypassed text[] NOT NULL DEFAULT '{}'::text[],
    remind_at timestamp with time zone,
    revised_at timestamp with time zone,
    escalated_at timestamp with time zone,
    begun_at timestamp with time zone,
    broken_by text,
    review_by timestamp with time zone,
    reviewed_by text,
    reviewed_at timestamp with time zone,
    review_told_at timestamp with time zone,
    wake_at timestamp with time zone GENERATED ALWAYS AS (
CASE
    WHEN ((state)::text = 'pending'::text) THEN LEAST(expires_at, escalate_at, remind_at)
    WHEN (((state)::text = 'approved'::text) AND (delivered_at IS NULL)) THEN lapses_at
    ELSE NULL::timestamp with time zone
END),
    CONSTRAINT approvals_pkey PRIMARY KEY (approval_id),
    CONSTRAINT approvals_workflow_id_interrupt_id_item_round_key UNIQUE (workflow_id, interrupt_id, item, round),
    CONSTRAINT approvals_workflow_id_fkey FOREIGN KEY (workflow_id) REFERENCES keyturn.workflows(workflow_id) ON DELETE CASCADE
) WITH (fillfactor=85);

CREATE TABLE keyturn.delegations (
    delegation_id text NOT NULL,
    namespace text NOT NULL,
    from_person text NOT NULL,
    to_person text NOT NULL,
    starts_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone NOT NULL,
    reason text NOT NULL DEFAULT ''::text,
    created_by text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    CONSTRAINT delegations_pkey PRIMARY KEY (delegation_id),
    CONSTRAINT delegations_namespace_from_person_fkey FOREIGN KEY (namespace, from_person) REFERENCES keyturn.people(namespace, person) ON DELETE CASCADE,
    CONSTRAINT delegations_namespace_to_person_fkey FOREIGN KEY (namespace, to_person) REFERENCES keyturn.people(namespace, person) ON DELETE CASCADE
);

CREATE TABLE keyturn.deliveries (
    delivery_id text NOT NULL,
    notice_id bigint NOT NULL,
    namespace text NOT NULL,
    workflow_id text NOT NULL,
    approval_id text,
    channel text NOT NULL,
    recipient text NOT NULL,
    people text[] NOT NULL,
    state keyturn.delivery_state NOT NULL DEFAULT 'queued'::text,
    attempts integer NOT NULL DEFAULT 0,
    queued_at timestamp with time zone NOT NULL,
    next_at timestamp with time zone,
    last_error text,
    external_id text,
    sent_at timestamp with time zone,
    CONSTRAINT deliveries_notice_id_channel_recipient_key UNIQUE (notice_id, channel, recipient),
    CONSTRAINT deliveries_pkey PRIMARY KEY (delivery_id),
    CONSTRAINT deliveries_notice_id_fkey FOREIGN KEY (notice_id) REFERENCES keyturn.notices(notice_id) ON DELETE CASCADE
) WITH (fillfactor=85);

CREATE TABLE keyturn.effects (
    key text NOT NULL,
    namespace text NOT NULL,
    workflow_id text NOT NULL,
    node text NOT NULL,
    visit text NOT NULL,
    name text NOT NULL,
    state keyturn.effect_state NOT NULL,
    result json,
    error text,
    approval_id text,
    token text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    asked integer NOT NULL DEFAULT 0,
    settled integer NOT NULL DEFAULT 0,
    started_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT effects_approval_id_key UNIQUE (approval_id),
    CONSTRAINT effects_pkey PRIMARY KEY (key),
    CONSTRAINT effects_approval_id_fkey FOREIGN KEY (approval_id) REFERENCES keyturn.approvals(approval_id),
    CONSTRAINT effects_workflow_id_fkey FOREIGN KEY (workflow_id) REFERENCES keyturn.workflows(workflow_id) ON DELETE CASCADE
);

CREATE TABLE keyturn.events (
    workflow_id text NOT NULL,
    seq bigint NOT NULL,
    namespace text NOT NULL,
    at timestamp with time zone NOT NULL,
    type text NOT NULL,
    actor text NOT NULL,
    body json NOT NULL,
    hash bytea NOT NULL,
    position bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    CONSTRAINT events_pkey PRIMARY KEY (workflow_id, seq)
);

CREATE TABLE keyturn.graphs (
    graph text NOT NULL,
    version text NOT NULL,
    input_schema json NOT NULL,
    topology json NOT NULL,
    max_running integer,
    offered_at timestamp with time zone NOT NULL DEFAULT now(),
    traits json NOT NULL DEFAULT '{}'::json,
    CONSTRAINT graphs_pkey PRIMARY KEY (graph, version)
);

CREATE TABLE keyturn.idempotency_keys (
    namespace text NOT NULL,
    caller text NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    subject text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (namespace, caller, key)
);

CREATE TABLE keyturn.links_used (
    link_id text NOT NULL,
    namespace text NOT NULL,
    approval_id text NOT NULL,
    used_at timestamp with time zone NOT NULL,
    CONSTRAINT links_used_pkey PRIMARY KEY (link_id),
    CONSTRAINT links_used_approval_id_fkey FOREIGN KEY (approval_id) REFERENCES keyturn.approvals(approval_id) ON DELETE CASCADE
);

CREATE TABLE keyturn.namespaces (
    namespace text NOT NULL,
    last_seq bigint NOT NULL DEFAULT 0,
    last_hash bytea NOT NULL DEFAULT '\x'::bytea,
    policy_version integer NOT NULL DEFAULT 0,
    people_version bigint NOT NULL DEFAULT 0,
    link_key bytea NOT NULL DEFAULT sha256((((gen_random_uuid())::text || (gen_random_uuid())::text))::bytea),
    CONSTRAINT namespaces_pkey PRIMARY KEY (namespace)
);

CREATE TABLE keyturn.notices (
    notice_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    namespace text NOT NULL,
    workflow_id text NOT NULL,
    approval_id text,
    kind keyturn.notice_kind NOT NULL,
    data json NOT NULL,
    at timestamp with time zone NOT NULL,
    fanned_at timestamp with time zone,
    CONSTRAINT notices_pkey PRIMARY KEY (notice_id),
    CONSTRAINT notices_workflow_id_fkey FOREIGN KEY (workflow_id) REFERENCES keyturn.workflows(workflow_id) ON DELETE CASCADE
);

CREATE TABLE keyturn.people (
    namespace text NOT NULL,
    person text NOT NULL,
    name text NOT NULL DEFAULT ''::text,
    email text,
    created_at timestamp with time zone NOT NULL DEFAULT now(),
    CONSTRAINT people_pkey PRIMARY KEY (namespace, person)
);

CREATE TABLE keyturn.policy_books (
    namespace text NOT NULL,
    version integer NOT NULL,
    text text NOT NULL,
    file text NOT NULL,
    versions json NOT NULL,
    digest text NOT NULL,
    published_by text NOT NULL,
    published_at timestamp with time zone NOT NULL,
    CONSTRAINT policy_books_pkey PRIMARY KEY (namespace, version)
);

CREATE TABLE keyturn.role_bindings (
    namespace text NOT NULL,
    person text NOT NULL,
    role text NOT NULL,
    granted_by text NOT NULL,
    granted_at timestamp with time zone NOT NULL DEFAULT now(),
    CONSTRAINT role_bindings_pkey PRIMARY KEY (namespace, person, role),
    CONSTRAINT role_bindings_namespace_person_fkey FOREIGN KEY (namespace, person) REFERENCES keyturn.people(namespace, person) ON DELETE CASCADE
);

CREATE TABLE keyturn.runs (
    run_id text NOT NULL,
    namespace text NOT NULL,
    thread_key text NOT NULL,
    workflow_id text NOT NULL,
    after_seq bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    metadata json NOT NULL DEFAULT '{}'::json,
    kwargs json NOT NULL DEFAULT '{}'::json,
    CONSTRAINT runs_pkey PRIMARY KEY (run_id),
    CONSTRAINT runs_workflow_id_fkey FOREIGN KEY (workflow_id) REFERENCES keyturn.workflows(workflow_id) ON DELETE CASCADE
);

CREATE TABLE keyturn.schema_components (
    component text NOT NULL,
    version text NOT NULL,
    applied_at timestamp with time zone NOT NULL DEFAULT now(),
    CONSTRAINT schema_components_pkey PRIMARY KEY (component)
);

CREATE TABLE keyturn.schema_migrations (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone NOT NULL DEFAULT now(),
    CONSTRAINT schema_migrations_pkey PRIMARY KEY (version)
);

CREATE TABLE keyturn.seen_requests (
    approval_id text NOT NULL,
    person text NOT NULL,
    CONSTRAINT seen_requests_pkey PRIMARY KEY (approval_id, person),
    CONSTRAINT seen_requests_approval_id_fkey FOREIGN KEY (approval_id) REFERENCES keyturn.approvals(approval_id) ON DELETE CASCADE
);

CREATE TABLE keyturn.threads (
    thread_key text NOT NULL,
    namespace text NOT NULL,
    thread_id text NOT NULL,
    kind keyturn.thread_kind NOT NULL,
    graph text,
    person text NOT NULL,
    mode keyturn.workflow_mode NOT NULL DEFAULT 'interactive'::text,
    title text NOT NULL DEFAULT ''::text,
    case_id text,
    metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
    idle_seconds double precision,
    idle_at timestamp with time zone,
    ended_at timestamp with time zone,
    ended_reason text,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT threads_namespace_thread_id_key UNIQUE (namespace, thread_id),
    CONSTRAINT threads_pkey PRIMARY KEY (thread_key)
);

CREATE TABLE keyturn.votes (
    vote_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    namespace text NOT NULL,
    approval_id text NOT NULL,
    revision integer NOT NULL,
    voter text NOT NULL,
    acting_for text,
    via text,
    verdict keyturn.vote_verdict NOT NULL,
    roles text[] NOT NULL,
    justification text NOT NULL DEFAULT ''::text,
    at timestamp with time zone NOT NULL,
    void_reason text,
    superseded boolean NOT NULL DEFAULT false,
    since timestamp with time zone,
    CONSTRAINT votes_pkey PRIMARY KEY (approval_id, vote_id),
    CONSTRAINT votes_approval_id_fkey FOREIGN KEY (approval_id) REFERENCES keyturn.approvals(approval_id) ON DELETE CASCADE
);

CREATE TABLE keyturn.workers (
    worker_id text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    capacity integer NOT NULL,
    graphs text[] NOT NULL,
    started_at timestamp with time zone NOT NULL DEFAULT now(),
    seen_at timestamp with time zone NOT NULL DEFAULT now(),
    CONSTRAINT workers_pkey PRIMARY KEY (worker_id)
);

CREATE TABLE keyturn.workflows (
    workflow_id text NOT NULL,
    namespace text NOT NULL,
    graph text NOT NULL,
    graph_version text NOT NULL,
    title text NOT NULL DEFAULT ''::text,
    case_id text,
    mode keyturn.workflow_mode NOT NULL DEFAULT 'interactive'::text,
    status keyturn.workflow_status NOT NULL,
    reason text,
    error json,
    input json NOT NULL,
    result json,
    requester text NOT NULL,
    on_behalf_of text,
    launched_by text,
    risk_level text,
    node text,
    checkpointed boolean NOT NULL DEFAULT false,
    priority smallint NOT NULL DEFAULT 0,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    run_at timestamp with time zone NOT NULL,
    deadline_at timestamp with time zone,
    owner text,
    lease_until timestamp with time zone,
    epoch bigint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    last_seq bigint NOT NULL DEFAULT 0,
    last_hash bytea NOT NULL DEFAULT '\x'::bytea,
    thread_key text,
    continues boolean NOT NULL DEFAULT false,
    capture boolean NOT NULL DEFAULT false,
    task boolean NOT NULL DEFAULT false,
    noted bigint NOT NULL DEFAULT 0,
    CONSTRAINT workflows_pkey PRIMARY KEY (workflow_id),
    CONSTRAINT workflows_thread_key_fkey FOREIGN KEY (thread_key) REFERENCES keyturn.threads(thread_key)
) WITH (fillfactor=85);

CREATE INDEX api_keys_by_person ON keyturn.api_keys USING btree (namespace, person);

CREATE INDEX approvals_judged ON keyturn.approvals USING btree (namespace, policy_seen) WHERE (((state)::text = 'pending'::text) AND ((kind)::text = 'approval'::text));

CREATE INDEX approvals_pending ON keyturn.approvals USING btree (namespace, urgent DESC, due_at, approval_id) WHERE ((state)::text = 'pending'::text);

CREATE INDEX approvals_review ON keyturn.approvals USING btree (review_by) WHERE ((reviewed_at IS NULL) AND (review_by IS NOT NULL));

CREATE INDEX approvals_wake ON keyturn.approvals USING btree (wake_at) WHERE (wake_at IS NOT NULL);

CREATE INDEX delegations_from ON keyturn.delegations USING btree (namespace, from_person, ends_at);

CREATE INDEX delegations_to ON keyturn.delegations USING btree (namespace, to_person, ends_at);

CREATE INDEX deliveries_by_lane ON keyturn.deliveries USING btree (approval_id, channel, recipient, notice_id);

CREATE INDEX deliveries_due ON keyturn.deliveries USING btree (next_at) WHERE ((state)::text = 'queued'::text);

CREATE INDEX effects_by_workflow ON keyturn.effects USING btree (workflow_id);

CREATE INDEX events_feed ON keyturn.events USING btree (namespace, "position");

CREATE INDEX events_progress ON keyturn.events USING btree (workflow_id, ((body ->> 'node'::text)), seq DESC) WHERE (type = 'progress'::text);

CREATE INDEX graphs_newest ON keyturn.graphs USING btree (graph, offered_at DESC);

CREATE INDEX idempotency_keys_age ON keyturn.idempotency_keys USING btree (created_at);

CREATE INDEX links_used_by_approval ON keyturn.links_used USING btree (approval_id);

CREATE INDEX notices_by_workflow ON keyturn.notices USING btree (workflow_id);

CREATE INDEX notices_late ON keyturn.notices USING btree (at) WHERE (fanned_at IS NULL);

CREATE INDEX notices_waiting ON keyturn.notices USING btree (workflow_id, notice_id) WHERE (fanned_at IS NULL);

CREATE INDEX role_bindings_by_role ON keyturn.role_bindings USING btree (namespace, role);

CREATE INDEX runs_of_thread ON keyturn.runs USING btree (namespace, thread_key, created_at DESC);

CREATE INDEX runs_of_workflow ON keyturn.runs USING btree (workflow_id);

CREATE INDEX sessions_ended ON keyturn.threads USING btree (namespace, person, created_at DESC, thread_key DESC) WHERE (((kind)::text = 'session'::text) AND (ended_at IS NOT NULL));

CREATE INDEX sessions_idle ON keyturn.threads USING btree (idle_at) WHERE (((kind)::text = 'session'::text) AND (ended_at IS NULL));

CREATE INDEX sessions_open ON keyturn.threads USING btree (namespace, person, created_at, thread_key) WHERE (((kind)::text = 'session'::text) AND (ended_at IS NULL));

CREATE INDEX threads_newest ON keyturn.threads USING btree (namespace, created_at DESC, thread_id);

CREATE INDEX threads_page ON keyturn.threads USING btree (namespace, updated_at DESC, thread_key);

CREATE UNIQUE INDEX votes_one_each ON keyturn.votes USING btree (approval_id, revision, voter) WHERE (NOT superseded);

CREATE UNIQUE INDEX workflows_active_on_thread ON keyturn.workflows USING btree (thread_key) WHERE ((thread_key IS NOT NULL) AND ((status)::text = ANY (ARRAY['ready'::text, 'running'::text, 'waiting'::text])));

CREATE INDEX workflows_by_case ON keyturn.workflows USING btree (namespace, case_id, created_at DESC) WHERE (case_id IS NOT NULL);

CREATE INDEX workflows_by_thread ON keyturn.workflows USING btree (thread_key, created_at DESC) WHERE (thread_key IS NOT NULL);

CREATE INDEX workflows_captured ON keyturn.workflows USING btree (namespace, created_at DESC, workflow_id DESC) WHERE capture;

CREATE INDEX workflows_deadline ON keyturn.workflows USING btree (deadline_at) WHERE ((deadline_at IS NOT NULL) AND ((status)::text = ANY (ARRAY['ready'::text, 'running'::text, 'waiting'::text])));

CREATE INDEX workflows_leased ON keyturn.workflows USING btree (lease_until) WHERE ((status)::text = 'running'::text);

CREATE INDEX workflows_page ON keyturn.workflows USING btree (namespace, created_at DESC, workflow_id DESC);

CREATE INDEX workflows_ready ON keyturn.workflows USING btree (priority DESC, run_at) WHERE ((status)::text = 'ready'::text);

CREATE INDEX workflows_tasks_ended ON keyturn.workflows USING btree (namespace, requester, finished_at) WHERE (task AND (finished_at IS NOT NULL));

CREATE INDEX workflows_tasks_open ON keyturn.workflows USING btree (namespace, requester) WHERE (task AND (finished_at IS NULL));

CREATE OR REPLACE FUNCTION keyturn.append_events(p_workflow text, p_at timestamp with time zone, p_types text[], p_actors text[], p_bodies text[])
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION keyturn.append_ledger(p_namespace text, p_at timestamp with time zone, p_types text[], p_actors text[], p_bodies text[])
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
DECLARE
    n record;
BEGIN
    INSERT INTO keyturn.namespaces (namespace) VALUES (p_namespace) ON CONFLICT DO NOTHING;
    SELECT last_seq, last_hash INTO STRICT n FROM keyturn.namespaces WHERE namespace = p_namespace FOR UPDATE;
    n.last_hash := keyturn.chain_events('@' || p_namespace, p_namespace, n.last_seq, n.last_hash, p_at, p_types,
                                        p_actors, p_bodies);
    n.last_seq := n.last_seq + cardinality(p_types);
    UPDATE keyturn.namespaces SET last_seq = n.last_seq, last_hash = n.last_hash WHERE namespace = p_namespace;
    RETURN n.last_seq;
END $function$;

CREATE OR REPLACE FUNCTION keyturn.cancel_approvals(p_workflow text, p_by text, p_at timestamp with time zone)
 RETURNS SETOF text
 LANGUAGE sql
AS $function$
    UPDATE keyturn.approvals
       SET state = 'cancelled',
           resolved_by = CASE WHEN state = 'pending' THEN p_by ELSE resolved_by END,
           resolved_at = CASE WHEN state = 'pending' THEN p_at ELSE resolved_at END
     WHERE workflow_id = p_workflow AND (state = 'pending' OR state = 'approved' AND delivered_at IS NULL)
    RETURNING approval_id
$function$;

CREATE OR REPLACE FUNCTION keyturn.chain_events(p_workflow text, p_namespace text, p_seq bigint, p_hash bytea, p_at timestamp with time zone, p_types text[], p_actors text[], p_bodies text[])
 RETURNS bytea
 LANGUAGE plpgsql
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION keyturn.commit_segment(p_workflow text, p_epoch bigint, p_now timestamp with time zone, p_parts json, p_bytes bytea[], p_wait boolean)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION keyturn.decide(p_workflow text, p_version xid, p_now timestamp with time zone, p_parts json, p_wait boolean)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION keyturn.defer_chores(p_task text, p_arguments jsonb[])
 RETURNS void
 LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM procrastinate.procrastinate_defer_jobs_v1(
        ARRAY(SELECT ROW('notifications', p_task, 0, NULL, NULL, one, NULL)
                     ::procrastinate.procrastinate_job_to_defer_v1
                FROM unnest(p_arguments) AS one));
END $function$;

CREATE OR REPLACE FUNCTION keyturn.event_hash(p_previous bytea, p_seq bigint, p_at timestamp with time zone, p_type text, p_actor text, p_body text)
 RETURNS bytea
 LANGUAGE sql
 STABLE
RETURN sha256((p_previous || convert_to(((((((((('
'::text || p_seq) || '
'::text) || to_char((p_at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text)) || '
'::text) || p_type) || '
'::text) || p_actor) || '
'::text) || p_body), 'UTF8'::name)));

CREATE OR REPLACE FUNCTION keyturn.hold_lease(p_workflow text, p_epoch bigint)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
DECLARE
    w record;
BEGIN
    SELECT epoch, status INTO w FROM keyturn.workflows WHERE workflow_id = p_workflow FOR UPDATE;
    IF NOT FOUND OR w.epoch <> p_epoch OR w.status <> 'running' THEN
        RAISE EXCEPTION 'workflow % is not held at epoch %', p_workflow, p_epoch USING ERRCODE = 'KT001';
    END IF;
END $function$;

CREATE OR REPLACE FUNCTION keyturn.note_events(p_workflow text, p_epoch bigint, p_number bigint, p_now timestamp with time zone, p_types text[], p_actors text[], p_bodies text[], p_wait boolean)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION keyturn.people_changed()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    INSERT INTO keyturn.namespaces AS n (namespace, people_version)
    VALUES (CASE WHEN TG_OP = 'DELETE' THEN OLD.namespace ELSE NEW.namespace END, 1)
    ON CONFLICT (namespace) DO UPDATE SET people_version = n.people_version + 1;
    RETURN NULL;
END $function$;

CREATE OR REPLACE FUNCTION keyturn.queue_deliveries(p_notice bigint, p_at timestamp with time zone, p_deliveries json)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION keyturn.queue_notices(p_workflow text, p_namespace text, p_at timestamp with time zone, p_notices json)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION keyturn.write_checkpoints(p_thread text, p_checkpoints json, p_blobs json, p_writes json, p_bytes bytea[])
 RETURNS void
 LANGUAGE plpgsql
AS $function$
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
END $function$;

CREATE TRIGGER delegations_changed AFTER INSERT OR DELETE OR UPDATE ON keyturn.delegations FOR EACH ROW EXECUTE FUNCTION keyturn.people_changed();

CREATE TRIGGER people_changed AFTER INSERT OR DELETE ON keyturn.people FOR EACH ROW EXECUTE FUNCTION keyturn.people_changed();

CREATE TRIGGER roles_changed AFTER INSERT OR DELETE OR UPDATE ON keyturn.role_bindings FOR EACH ROW EXECUTE FUNCTION keyturn.people_changed();

CREATE DOMAIN keyturn.approval_dialect AS text CHECK ((VALUE = ANY (ARRAY['keyturn'::text, 'langchain'::text, 'langchain_call'::text, 'agent_inbox'::text, 'raw'::text])));

CREATE DOMAIN keyturn.approval_kind AS text CHECK ((VALUE = ANY (ARRAY['approval'::text, 'question'::text])));

CREATE DOMAIN keyturn.approval_route AS text CHECK ((VALUE = ANY (ARRAY['AUTO'::text, 'QUICK'::text, 'FULL'::text, 'DENIED'::text])));

CREATE DOMAIN keyturn.approval_state AS text CHECK ((VALUE = ANY (ARRAY['pending'::text, 'approved'::text, 'executed'::text, 'lapsed'::text, 'stale'::text, 'rejected'::text, 'expired'::text, 'withdrawn'::text, 'answered'::text, 'cancelled'::text])));

CREATE DOMAIN keyturn.delivery_state AS text CHECK ((VALUE = ANY (ARRAY['queued'::text, 'sent'::text, 'dead'::text])));

CREATE DOMAIN keyturn.effect_state AS text CHECK ((VALUE = ANY (ARRAY['started'::text, 'finished'::text, 'failed'::text])));

CREATE DOMAIN keyturn.notice_kind AS text CHECK ((VALUE = ANY (ARRAY['requested'::text, 'revised'::text, 'reminder'::text, 'escalated'::text, 'settled'::text, 'break_glass'::text, 'review_due'::text, 'unroutable'::text])));

CREATE DOMAIN keyturn.rejection_outcome AS text CHECK ((VALUE = ANY (ARRAY['cancel'::text, 'resume'::text])));

CREATE DOMAIN keyturn.thread_kind AS text CHECK ((VALUE = ANY (ARRAY['thread'::text, 'ag-ui'::text, 'session'::text])));

CREATE DOMAIN keyturn.vote_verdict AS text CHECK ((VALUE = ANY (ARRAY['approve'::text, 'reject'::text])));

CREATE DOMAIN keyturn.workflow_mode AS text CHECK ((VALUE = ANY (ARRAY['interactive'::text, 'autonomous'::text])));

CREATE DOMAIN keyturn.workflow_status AS text CHECK ((VALUE = ANY (ARRAY['ready'::text, 'running'::text, 'waiting'::text, 'completed'::text, 'failed'::text, 'rejected'::text, 'expired'::text, 'cancelled'::text, 'timed_out'::text])));
