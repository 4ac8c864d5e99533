// Keyturn's LangGraph API through the npm client, in the sequences of calls that people's applications make.
import { writeFileSync } from "node:fs";
import { Client } from "@langchain/langgraph-sdk";

const apiUrl = process.env.KEYTURN_URL;
const keys = JSON.parse(process.env.KEYTURN_KEYS);
const client = (name) => new Client({ apiUrl, apiKey: keys[name], callerOptions: { maxRetries: 0 } });
const [rita, tara, tom, theo, cleo] = ["rita", "tara", "tom", "theo", "cleo"].map(client);
const GATE = { type: "approval", action: { operation: "deploy", environment: "production" } };
const ASKS = { messages: [{ type: "human", content: "clean up" }] };

async function all(stream) {
  const found = [];
  for await (const part of stream) found.push(part);
  return found;
}

async function refused(promise) {
  try {
    await promise;
  } catch (error) {
    return { status: error.status, ...JSON.parse(error.text) };
  }
  throw new Error("it was not refused");
}

const names = (parts) => parts.map((part) => part.event);

const scenarios = {
  // create, stream to the interrupt, resume by wait, look back
  async life() {
    const thread = await rita.threads.create({ metadata: { team: "blue" } });
    const begun = [];
    const parts = await all(
      rita.runs.stream(thread.thread_id, "batched", {
        input: ASKS,
        streamMode: ["values", "updates"],
        onRunCreated: (run) => begun.push(run),
      }),
    );
    const asked = parts.filter((part) => part.event === "values").at(-1).data.__interrupt__;
    const decisions = [{ type: "approve" }, { type: "approve" }, { type: "respond", message: "yes" }];
    const values = await tara.runs.wait(thread.thread_id, "batched", { command: { resume: { [asked[0].id]: { decisions } } } });
    const joined = await all(rita.runs.joinStream(thread.thread_id, begun[0].run_id, { lastEventId: "-1" }));
    const history = await rita.threads.getHistory(thread.thread_id, { limit: 5 });
    return {
      run: begun[0].run_id === (await rita.runs.list(thread.thread_id)).at(-1).run_id,
      events: names(parts),
      joined: names(joined).at(-1),
      last: values.messages.at(-1).content,
      status: (await rita.threads.get(thread.thread_id)).status,
      newest: history[0].values.messages.length === values.messages.length,
    };
  },

  // four at once on one interrupt
  async race() {
    const thread = await rita.threads.create();
    const asked = (await rita.runs.wait(thread.thread_id, "anything", { input: { payload: GATE } })).__interrupt__;
    const resume = (who) => who.runs.wait(thread.thread_id, "anything", { command: { resume: { [asked[0].id]: true } } });
    const settled = await Promise.allSettled([tara, tom, theo, tara].map(resume));
    const won = settled.filter((one) => one.status === "fulfilled").map((one) => one.value.answers[0].by[0]);
    const lost = settled
      .filter((one) => one.status === "rejected")
      .map((one) => ({ status: one.reason.status, ...JSON.parse(one.reason.text) }));
    return { won, lost: lost.map(({ status, code, resolved_by }) => ({ status, code, resolved_by })) };
  },

  async refusals() {
    const thread = await rita.threads.create();
    const id = thread.thread_id;
    const asked = (await rita.runs.wait(id, "anything", { input: { payload: GATE } })).__interrupt__;
    const send = (body, who = tara) => refused(who.runs.wait(id, "anything", body));
    const found = {
      unknown: await send({ command: { resume: { ["0".repeat(32)]: true } } }),
      malformed: await send({ command: { resume: { approved: "yes" } } }),
      goto: await send({ command: { goto: "__end__" } }),
      input: await send({ input: { payload: 1 } }, rita),
      self: await send({ command: { resume: true } }, rita),
      fork: await send({ command: { resume: true }, checkpoint: { checkpoint_ns: "", checkpoint_id: "1f0" } }),
      stranger: await refused(new Client({ apiUrl, apiKey: "kt_no_no", callerOptions: { maxRetries: 0 } }).threads.get(id)),
    };
    const values = await tara.runs.wait(id, "anything", { command: { resume: { [asked[0].id]: { approved: true } } } });
    return { codes: Object.fromEntries(Object.entries(found).map(([key, one]) => [key, [one.status, one.code]])), approved: values.answers[0].approved };
  },

  // langchain-ai/agent-inbox: contexts/ThreadContext.tsx
  async inbox() {
    const config = { allow_accept: true, allow_edit: true, allow_respond: true, allow_ignore: true };
    const payload = [{ action_request: { action: "send", args: { to: "ann" } }, config, description: "A mail to Ann" }];
    const [first, second] = [await rita.threads.create(), await rita.threads.create()];
    for (const one of [first, second]) await rita.runs.wait(one.thread_id, "anything", { input: { payload } });
    const hitl = await rita.threads.create();
    await rita.runs.wait(hitl.thread_id, "two_turns", { input: ASKS });
    const info = await fetch(`${apiUrl}/info`, { headers: { "Content-Type": "application/json", "x-api-key": keys.tara } });
    const search = () => tara.threads.search({ offset: 0, limit: 10, status: "interrupted", metadata: { graph_id: "anything" } });
    const threads = await search();
    const shown = Object.values(threads.at(-1).interrupts).flatMap((ones) => ones[0].value);
    const parts = await all(
      tara.runs.stream(first.thread_id, "anything", { command: { resume: [{ type: "accept", args: null }] }, streamMode: "events" }),
    );
    const graph = parts.filter((part) => part.event === "events").map((part) => part.data.metadata.langgraph_node);
    await tara.threads.updateState(second.thread_id, { values: null, asNode: "__end__" });
    // It shows what LangChain's middleware asks as its own, and answers so; one turn after the other, without ids.
    const states = [];
    for (const response of [{ type: "accept", args: null }, { type: "response", args: "no" }]) {
      const state = await tara.threads.getState(hitl.thread_id);
      states.push(state.tasks.at(-1).interrupts.at(-1).value.action_requests[0].args);
      const run = await tara.runs.create(hitl.thread_id, "two_turns", { command: { resume: [response] } });
      await tara.runs.join(hitl.thread_id, run.run_id);
    }
    return {
      info: info.ok,
      found: threads.length,
      shown: shown[0],
      end: names(parts).at(-1),
      nodes: [...new Set(graph)],
      answers: (await rita.threads.get(first.thread_id)).values.answers,
      left: (await search()).length,
      turns: states,
      words: (await rita.threads.get(hitl.thread_id)).values.messages.filter((one) => one.type === "tool").map((one) => one.content),
    };
  },

  // langchain-ai/agent-chat-ui, and the useStream hook it stands on
  async chat() {
    const info = await fetch(`${apiUrl}/info`, { headers: { "X-Api-Key": keys.rita } });
    const { thread_id } = await rita.threads.create({ threadId: undefined, metadata: undefined });
    const streamMode = ["values", "messages-tuple"];
    const submit = async (who, input, options) => {
      const head = (await who.threads.getHistory(thread_id, { limit: 10 }))[0]?.checkpoint;
      if (head) delete head.thread_id;
      return who.runs.stream(thread_id, "batched", {
        input, config: undefined, command: undefined, checkpoint: head, streamMode, streamSubgraphs: true,
        streamResumable: false, onDisconnect: "cancel", ...options,
      });
    };
    const human = { id: "0d4a5cbe-7a4b-4f7e-9f58-0f6f4d3a1c11", type: "human", content: [{ type: "text", text: "clean up" }] };
    const first = await all(
      await submit(rita, { messages: [human] }, { streamResumable: true, onDisconnect: "continue", streamMode: ["values"] }),
    );
    const waiting = (await rita.threads.getHistory(thread_id, { limit: 10 }))[0];
    const resolved = await refused(all(await submit(tara, {}, { command: { goto: "__end__" } })));
    const decisions = [{ type: "approve" }, { type: "reject", message: "no" }, { type: "respond", message: "yes" }];
    const second = await all(await submit(tara, {}, { command: { resume: { decisions } } }));
    const threads = await rita.threads.search({ metadata: { graph_id: "batched" }, limit: 100 });
    return {
      info: info.ok,
      first: names(first).at(-1),
      human: first.filter((part) => part.event === "values").at(0).data.messages?.[0].type,
      asked: waiting.tasks.flatMap((task) => task.interrupts).length,
      next: waiting.next.length > 0,
      resolved: [resolved.status, resolved.code],
      second: names(second).at(-1),
      last: second.filter((part) => part.event === "values").at(-1).data.messages.at(-1).content,
      threads: threads.map((one) => one.values.messages[0].type),
    };
  },

  // a stream whose connection breaks: the client goes on by itself
  async reconnect() {
    const input = JSON.parse(process.env.INPUT);
    const asked = [];
    const noting = new Client({
      apiUrl,
      apiKey: keys.rita,
      onRequest: (url, init) => {
        asked.push([init.method, new Headers(init.headers).get("last-event-id")]);
        return init;
      },
    });
    const { thread_id } = await noting.threads.create();
    const parts = [];
    let broke = null;
    for await (const part of noting.runs.stream(thread_id, "blocking", { input, streamMode: ["updates", "values"] })) {
      parts.push([part.event, part.data]);
      if (part.event === "updates" && "first" in part.data) {
        broke = part.id;
        writeFileSync(`${input.text}.seen`, "");
      }
    }
    return { asked, broke, parts };
  },
};

console.log(JSON.stringify(await scenarios[process.env.SCENARIO]()));
