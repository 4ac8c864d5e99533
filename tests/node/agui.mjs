// Runs scenarios with AG-UI's own client against the Keyturn at KEYTURN_URL; prints what it saw as JSON.
//
// KEYTURN_KEYS is `{person: key}`. A scenario throws where the client refuses a stream or a promise is broken.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { HttpAgent, buildResumeArray } from "@ag-ui/client";

const url = process.env.KEYTURN_URL;
const keys = JSON.parse(process.env.KEYTURN_KEYS);

// An agent that acts with one person's key on a thread.
function agentOf(person, graph, threadId, settings = {}) {
  return new HttpAgent({
    url: `${url}/ag-ui/${graph}`,
    threadId,
    headers: { "X-API-Key": keys[person] },
    ...settings,
  });
}

// One run, as its subscriber sees it.
async function run(agent, parameters = {}) {
  const seen = { steps: [], texts: {}, customs: [], outcome: undefined, interrupts: [], error: undefined };
  const { result, newMessages } = await agent.runAgent(parameters, {
    onStepFinishedEvent: ({ event }) => void seen.steps.push(event.stepName),
    onTextMessageContentEvent: ({ event }) => {
      seen.texts[event.messageId] = (seen.texts[event.messageId] ?? "") + event.delta;
    },
    onCustomEvent: ({ event }) => void seen.customs.push(event),
    onRunErrorEvent: ({ event }) => void (seen.error = { code: event.code, message: event.message }),
    onRunFinishedEvent: ({ event, outcome, interrupts }) => {
      seen.stated = event.outcome?.type;
      seen.outcome = outcome;
      seen.interrupts = interrupts ?? [];
    },
  });
  return { ...seen, result, newMessages };
}

const custom = (seen, name) => seen.customs.filter((event) => event.name === name).map((event) => event.value);
const warned = (seen) => custom(seen, "warning").map((value) => value.code);
const yes = (interrupt) => ({ interruptId: interrupt.id, status: "resolved", payload: { approved: true } });
const user = (content) => ({ id: randomUUID(), role: "user", content });

const scenarios = {
  // A conversation of two turns: text as it comes, state and messages kept by the client.
  async text() {
    const agent = agentOf("rita", "chat", "text");
    agent.addMessage(user("hello"));
    const first = await run(agent);
    assert.equal(first.outcome, "success");
    assert.deepEqual(first.steps, ["router", "reply"]);
    assert.deepEqual(Object.values(first.texts), ["You said: hello"]);
    assert.deepEqual(agent.messages.map((one) => [one.role, one.content]), [
      ["user", "hello"],
      ["assistant", "You said: hello"],
    ]);
    agent.addMessage(user("again"));
    await run(agent);
    assert.deepEqual(agent.messages.map((one) => one.content), ["hello", "You said: hello", "again", "You said: again"]);
    assert.deepEqual(agent.state.visits, ["router", "router"]);
    assert.ok(!JSON.stringify(agent.messages).includes("SECRET"));
  },

  // A question: its text, HITL_REQUIRED, the interrupt; the client's own answer; the result.
  async interrupt() {
    const agent = agentOf("rita", "sorter", "interrupt");
    agent.addMessage(user("a note"));
    const asked = await run(agent);
    assert.equal(asked.outcome, "interrupt");
    assert.deepEqual(Object.values(asked.texts), ["Is this about work or home?"]);
    assert.deepEqual(custom(asked, "HITL_REQUIRED"), [{ threadId: "interrupt" }]);
    assert.equal(agent.pendingInterrupts.length, 1);
    assert.deepEqual(agent.pendingInterrupts[0].responseSchema.properties.answer.enum, ["work", "home"]);
    const resume = buildResumeArray(agent.pendingInterrupts, {
      [agent.pendingInterrupts[0].id]: { status: "resolved", payload: { answer: "work" } },
    });
    const over = await run(agent, { resume });
    assert.equal(over.outcome, "success");
    assert.equal(over.result.category, "work");
    assert.equal(agent.state.category, "work");
    assert.equal(agent.pendingInterrupts.length, 0);
    // The question stays in the conversation.
    assert.deepEqual(agent.messages.map((one) => one.content), ["a note", "Is this about work or home?"]);
  },

  // A wrong id is applied to nothing; what is valid beside it is.
  async wrongId() {
    const agent = agentOf("rita", "deploy_both", "wrong");
    const [left, right] = (await run(agent)).interrupts;
    const approver = agentOf("tara", "deploy_both", "wrong");
    const wrong = { ...left, id: "0".repeat(32) };
    const seen = await run(approver, { resume: [yes(wrong), yes(left)] });
    assert.deepEqual(warned(seen), ["unknown_interrupt"]);
    assert.equal(seen.outcome, "interrupt");
    assert.deepEqual(seen.interrupts.map((one) => one.id), [right.id]);
    const over = await run(approver, { resume: [yes(right)] });
    assert.deepEqual(over.result.log.slice().sort(), ["done", "left True", "right True"]);
  },

  // Two at once, answered in one run.
  async parallel() {
    const agent = agentOf("rita", "deploy_both", "parallel");
    const asked = await run(agent);
    assert.equal(asked.interrupts.length, 2);
    const approver = agentOf("tara", "deploy_both", "parallel");
    const over = await run(approver, { resume: asked.interrupts.map(yes) });
    assert.equal(over.outcome, "success");
    assert.equal(over.result.log.length, 3);
  },

  // The client itself refuses to leave one uncovered; a client without its memory is asked again.
  async uncovered() {
    const agent = agentOf("rita", "deploy_both", "uncovered");
    const asked = await run(agent);
    await assert.rejects(run(agent), /not addressed by resume/);
    const approver = agentOf("tara", "deploy_both", "uncovered");
    const again = await run(approver);
    assert.equal(again.outcome, "interrupt");
    assert.deepEqual(again.interrupts, asked.interrupts);
    const half = await run(agentOf("tara", "deploy_both", "uncovered"), { resume: [yes(asked.interrupts[0])] });
    assert.deepEqual(half.interrupts.map((one) => one.id), [asked.interrupts[1].id]);
    const over = await run(approver, { resume: asked.interrupts.map(yes) });
    assert.equal(over.outcome, "success");
  },

  // A cancelled entry rejects.
  async cancelled() {
    const agent = agentOf("rita", "deploy", "cancelled");
    const [asked] = (await run(agent)).interrupts;
    const approver = agentOf("tara", "deploy", "cancelled");
    const over = await run(approver, { resume: [{ interruptId: asked.id, status: "cancelled" }] });
    assert.equal(over.outcome, "cancelled");
    assert.equal(custom(over, "workflow_ended")[0].status, "rejected");
    assert.equal(custom(over, "workflow_ended")[0].by, "tara");
  },

  // What a policy wants of two people, one does not decide; nor the requester, nor who is no approver.
  async quorum() {
    const agent = agentOf("rita", "deploy", "quorum", { initialState: { target: "vault" } });
    const [asked] = (await run(agent)).interrupts;
    assert.deepEqual(warned(await run(agent, { resume: [yes(asked)] })), ["self_approval"]);
    const tara = await run(agentOf("tara", "deploy", "quorum"), { resume: [yes(asked)] });
    assert.equal(tara.outcome, "interrupt");
    assert.equal(tara.interrupts[0].metadata.approvals[0].stillNeeded, 1);
    const again = await run(agentOf("tara", "deploy", "quorum"), { resume: [yes(asked)] });
    assert.equal(again.outcome, "interrupt");
    const over = await run(agentOf("tom", "deploy", "quorum"), { resume: [yes(asked)] });
    assert.equal(over.outcome, "success");
  },

  // A client from before 1.0, and the graph's switch.
  async legacy() {
    const agent = agentOf("rita", "old_sorter", "legacy");
    agent.addMessage(user("a note"));
    const asked = await run(agent);
    assert.equal(asked.stated, undefined);
    assert.deepEqual(agent.pendingInterrupts, []);
    assert.equal(JSON.parse(custom(asked, "on_interrupt")[0]).prompt, "Is this about work or home?");
    const over = await run(agent, { forwardedProps: { command: { resume: "home" } } });
    assert.equal(over.stated, undefined);
    assert.equal(over.result.category, "home");
  },

  // Two people answer at once: one wins, the other is told who.
  async racing() {
    const [asked] = (await run(agentOf("rita", "deploy", "racing"))).interrupts;
    const seen = await Promise.all(
      ["tara", "tom"].map((person) => run(agentOf(person, "deploy", "racing"), { resume: [yes(asked)] })),
    );
    assert.deepEqual(seen.map((one) => one.outcome), ["success", "success"]);
    assert.deepEqual(seen.map((one) => one.result.log), [["only True", "done"], ["only True", "done"]]);
    const warnings = seen.flatMap((one) => custom(one, "warning"));
    assert.deepEqual(warnings.map((one) => one.code), ["already_resolved"]);
    assert.ok(["tara", "tom"].includes(warnings[0].resolved_by));
  },

  // A run that fails; a key that may not decide; no key.
  async failing() {
    const seen = await run(agentOf("rita", "failing", "failing"));
    assert.equal(seen.error.code, "node_error");
    const [asked] = (await run(agentOf("rita", "deploy", "keys"))).interrupts;
    await assert.rejects(run(agentOf("reader", "deploy", "keys"), { resume: [yes(asked)] }), { status: 403 });
    keys.nobody = "kt_none_none";
    await assert.rejects(run(agentOf("nobody", "deploy", "keys")), { status: 401 });
  },
};

// What the client logs of refused runs is what the scenarios look for.
console.error = () => {};
const names = process.env.SCENARIOS ? process.env.SCENARIOS.split(" ") : Object.keys(scenarios);
for (const name of names) {
  try {
    await scenarios[name]();
  } catch (error) {
    process.stderr.write(`scenario ${name}: ${error.stack}\n`);
    process.exitCode = 1;
  }
}
console.log(JSON.stringify(names));
