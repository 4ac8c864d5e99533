// Prints the versions of the clients, once they could be loaded.
import { createRequire } from "node:module";
import { HttpAgent } from "@ag-ui/client";
import { Client } from "@langchain/langgraph-sdk";

const own = createRequire(import.meta.url)("./package.json").dependencies;
new Client({ apiUrl: process.env.KEYTURN_URL });
new HttpAgent({ url: process.env.KEYTURN_URL });
console.log(JSON.stringify({ node: process.versions.node, clients: own }));
